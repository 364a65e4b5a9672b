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
from tasks.run import git, paths

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


def absent_base(profile: str, source: object) -> str | None:
    """Return why a profile has no base to train, with the cure; None if its folder is there.

    Stages depend on ``base/<profile>``, whatever ``model.source`` says. DVC itself says
    `[Errno 2]` of it, and only at the stage ``sft``.

    Args:
        profile: Its name.
        source: Its ``model.source``.
    """
    base = paths.BASE / profile
    pin = of(base)
    if base.is_dir():
        return None
    absent = f"{base} is absent, which sft and all later stages read: "
    if pin.is_file():
        return f"{absent}`dvc pull {pin}` fetches it"
    if not is_elsewhere(profile, source):
        return (
            f"{absent}`atelier base` trains a small one, or copy one there in diffusers' "
            f"layout, as `cp -r base/starter {base}`"
        )
    file, there = paths.profile(profile), Path(str(source)).is_dir()
    cure = (
        f"Copy that base, `cp -r {source} {base}`, and set `model.source: {base}`; or set "
        f"`profile:` in {paths.SWITCH} to the profile whose base it is"
        if there
        else f"If {str(source)!r} is on the hub, the folder needs a note alone: `cp -r "
        f"base/flux {base}`; otherwise put the base into {base}, and set `model.source: {base}`"
    )
    return (
        f"{file}: model.source is {str(source)!r}, and the stages of this profile depend on "
        f"{base}, which is absent. {cure}"
    )


def is_elsewhere(profile: str, source: object) -> bool:
    """Say whether a profile names another base than the one in its own folder."""
    return isinstance(source, str) and Path(source) != paths.BASE / profile


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
