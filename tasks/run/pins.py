"""Pins of inputs: the files ``<folder>.dvc`` by which DVC brings a folder to other clones.

Git does not hold a base of one's own, a LoRA that a training begins from, or the pictures. What
neither git nor DVC tracks reaches no colleague, no worker and no workspace of
``dvc exp run --temp``.
"""

import subprocess
import sys
from pathlib import Path
from typing import Literal

from atelier.errors import ArtifactError
from tasks.run import git

Tracker = Literal["dvc", "git", "nobody"]
_MODEL = "model_index.json"  # every base has it


def of(folder: Path) -> Path:
    """Return the file that pins a folder, whether it is there or not."""
    return folder.with_name(f"{folder.name}.dvc")


def tracker(base: Path) -> Tracker:
    """Return who tracks the weights of a base; a note beside them does not count."""
    if of(base).is_file():
        return "dvc"
    return "git" if git.answer("ls-files", "--", str(base / _MODEL)) else "nobody"


def obstacle(base: Path) -> str | None:
    """Return why DVC cannot track a base here; None if it can."""
    if not Path(".dvc").is_dir():
        return "this is no DVC repository"
    if not base.absolute().is_relative_to(Path.cwd()) or ".." in base.parts:
        return "it lies outside the repository; move it to base/<profile>"
    notes = (git.answer("ls-files", "--", str(base)) or "").splitlines()
    if notes and not of(base).is_file():
        return f"git tracks files in it; run `git rm --quiet {' '.join(notes)}` first"
    return None


def add(base: Path) -> str:
    """Pin a base that was just made, unless git tracks it; return a sentence about it.

    Raises:
        ArtifactError: DVC failed; the base itself is whole.
    """
    if tracker(base) == "git":
        return f"git tracks {base}, so it is not pinned"
    why = obstacle(base)
    if why is not None:
        return f"{base} is not pinned, so other clones will not have it: {why}"
    pin = of(base)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "add", "--quiet", str(base)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[-400:]
        raise ArtifactError(
            f"{base} is whole, but DVC could not pin it ({said}); run `dvc add {base}` once "
            "that is mended"
        )
    return (
        f"{pin} pins it: commit that file, and `dvc push` brings the base to a remote, from "
        "which `dvc pull` has it"
    )
