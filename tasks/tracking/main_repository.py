"""Main repository of a temporary copy, with which the copy shares what must outlive it.

``dvc exp run --temp`` and ``--queue``, and runs with changed settings, work in a copy of the
repository below its ``.dvc/tmp``. MLflow's store, checkpoints, paid answers and encoded
pictures are not outs of stages, so DVC brings none of them to the copy, which is deleted later.
"""

import os
from pathlib import Path

from tasks.run import paths

EXPERIMENT = "ATELIER_EXPERIMENT"  # variable: what a run with changed settings is called
_DVC_EXPERIMENT = "DVC_EXP_NAME"  # DVC's own, for `dvc exp run`
_SHARED = (paths.LIVE, paths.MLFLOW, paths.RESUME, paths.CACHE, paths.SURVEY)
_WEIGHTS = Path("weights")


def found() -> Path | None:
    """Return the repository in whose ``.dvc/tmp`` this one lies; None if it lies in none."""
    for folder in Path.cwd().parents:
        if folder.parts[-2:] == (".dvc", "tmp"):
            above = folder.parents[1]
            if (above / "dvc.yaml").is_file():
                return above
    return None


def share() -> None:
    """Link what must outlive a temporary copy to the main repository's; else do nothing."""
    main = found()
    if main is None:
        return
    for folder in _SHARED:
        (main / folder).mkdir(parents=True, exist_ok=True)
        _link(main / folder, folder)
    if (main / _WEIGHTS).is_dir():
        _link(main / _WEIGHTS, _WEIGHTS)


def experiment() -> str | None:
    """Return the name of the experiment that this process belongs to, if it does.

    An experiment's models are registered as such, and no alias moves to them.
    """
    named = os.environ.get(EXPERIMENT) or os.environ.get(_DVC_EXPERIMENT)
    main = found()
    return named or (Path.cwd().name if main is not None else None)


def _link(there: Path, here: Path) -> None:
    if here.is_symlink() and not here.exists():  # the repository was moved since
        here.unlink()
    if not here.exists():
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(there, target_is_directory=True)
