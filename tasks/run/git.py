"""Git in the working directory: what a command prints, or an error that an operator can fix."""

import subprocess
from collections.abc import Mapping

from atelier.errors import ArtifactError

# Tracked files below this folder with uncommitted changes. Every run rewrites dvc.lock.
CHANGES = ("status", "--porcelain", "--untracked-files=no", ".", ":!dvc.lock")
_SECONDS = 10.0  # for a question; fetching and cloning take as long as they take


def run(*words: str, variables: Mapping[str, str] | None = None) -> str:
    """Return what a git command prints.

    Args:
        words: Of the command.
        variables: Its environment; None: ours.

    Raises:
        ArtifactError: It failed.
    """
    done = subprocess.run(
        ["git", *words], capture_output=True, text=True, check=False, env=variables
    )
    if done.returncode:
        raise ArtifactError(f"git {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def answer(*words: str) -> str | None:
    """Return what a git command prints; None where it fails, as outside of a repository."""
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
