"""Completion markers: finished work that DVC has not recorded is committed, not repeated.

A stage takes hours, and DVC needs a second to record it in dvc.lock. If DVC is killed in that
second, the next run would train again, because DVC deletes outs before a run. So a flow records
the inputs of a stage before it runs, the stage's process writes a marker at its end, and both
are removed after DVC has recorded the result.
"""

import subprocess
from pathlib import Path

from flows.dvc import runner
from flows.dvc.stages import Stage
from tasks.run import paths

_FOLDER = Path(".dvc/tmp/atelier")


def expect(stage: Stage, made_of: str) -> dict[str, str]:
    """Note what the stage is made of; return the variable that asks it for a receipt."""
    forget(stage)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    _note(stage).write_text(made_of, encoding="utf-8")
    return {paths.RECEIPT: str(_receipt(stage).resolve())}


def commit(stage: Stage, made_of: str) -> bool:
    """Record what an earlier run of the stage finished, if it did and all of it is there.

    Args:
        stage: What would run.
        made_of: What its ``plan.Prospect`` says of it now.
    """
    note, receipt = _note(stage), _receipt(stage)
    if not (note.is_file() and receipt.is_file()):
        return False
    if note.read_text(encoding="utf-8") != made_of:
        return False
    ended = receipt.stat().st_mtime
    outs = [Path(out) for out in stage.outs]
    if not all(out.exists() and _newest(out) <= ended for out in outs):
        return False
    done = subprocess.run(
        runner.dvc("commit", "--force", stage.name), env=runner.environment({}), check=False
    )
    if done.returncode == 0:
        forget(stage)
    return done.returncode == 0


def forget(stage: Stage) -> None:
    """Remove note and receipt: DVC has the result, or there is none."""
    _receipt(stage).unlink(missing_ok=True)
    _note(stage).unlink(missing_ok=True)


def _newest(out: Path) -> float:
    files = [file for file in out.rglob("*") if file.is_file()] if out.is_dir() else [out]
    return max((file.stat().st_mtime for file in files), default=0.0)


def _note(stage: Stage) -> Path:
    return _FOLDER / f"{stage.name}.made-of"


def _receipt(stage: Stage) -> Path:
    return _FOLDER / f"{stage.name}.finished"
