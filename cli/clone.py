"""The clone that a command works in, found upwards from the user's folder.

The code reads and writes paths below the root of the repository, so a command changes to the
root first. Paths that the user typed are relative to the user's own folder.
"""

import os
import sys
from pathlib import Path


def root() -> Path | None:
    """Return the nearest folder with dvc.yaml and params/, here or above."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params").is_dir():
            return folder
    return None


def enter() -> None:
    """Change to the root of the clone.

    Raises:
        ArtifactError: The working directory lies in no clone.
    """
    found = root()
    if found is None:
        from atelier.errors import ArtifactError

        raise ArtifactError(
            f"{Path.cwd()} is not inside a clone of atelier: no folder from here upwards has "
            "dvc.yaml and params/; change to a clone and run the command again"
        )
    os.chdir(found)
    os.environ["PWD"] = str(found)  # child processes and Prefect's worker read it


def note(users: Path) -> str | None:
    """Return where paths and commands that were printed are meant; None in the root itself.

    Args:
        users: The folder in which the user typed the command.
    """
    if not users.is_dir() or not Path.cwd().is_dir():
        return None
    above = os.path.relpath(Path.cwd(), users)
    if above == "." or not (Path.cwd() / "dvc.yaml").is_file():
        return None
    return f"Paths and commands above are those of the clone's root: cd {above}"


def use_own_code() -> None:
    """Start again with the code of this clone, if another clone's code is installed."""
    found = root()
    running = Path(__file__).resolve().parents[1]
    if found is None or found == running or not (found / "cli" / "__main__.py").is_file():
        return
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(found), others]))
    os.execv(sys.executable, [sys.executable, "-m", "cli", *sys.argv[1:]])  # noqa: S606


def path(text: str) -> Path:
    """Return a path that the user typed, as it is called in the root of the clone."""
    found = root()
    if found is None or Path(text).is_absolute():
        return Path(text)
    whole = Path(os.path.abspath(text))  # noqa: PTH100 -- resolve() would follow links
    return whole.relative_to(found) if whole.is_relative_to(found) else whole


def model(text: str) -> str:
    """Return a model's name; a folder needs a slash, as ``./lora`` has, and becomes a path.

    The name of a row may stand before it: ``before=./old``.
    """
    row, sign, named = text.partition("=")
    if sign and row and "/" not in row:
        return f"{row}={model(named)}"
    is_folder = "/" in text and not text.startswith("models:/")
    return str(path(text)) if is_folder else weights(text)


def weights(text: str) -> str:
    """Return a model's name; a file of weights, or a folder as ``./lora``, becomes a path."""
    is_place = text.startswith((".", "/")) or text.lower().endswith(".safetensors")
    return str(path(text)) if is_place else text


def stages() -> list[str]:
    """Return the stages of dvc.yaml for shell completion; none outside of a clone."""
    import yaml

    found = root()
    if found is None:
        return []
    return list(yaml.safe_load((found / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
