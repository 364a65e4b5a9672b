"""Clone of a worker: its pool, its name in deployments, and the pull step that enters it.

A flow runs in the clone in which its worker was started. prefect.yaml uses the pull step
because ``{{ $PWD }}`` would be the folder of the person who deployed. Each clone has a pool of
its own: from a common one, a worker of another clone would take this one's runs.
"""

import hashlib
import os
import socket
from pathlib import Path

from atelier.errors import ArtifactError

POOL = "ATELIER_POOL"  # for prefect.yaml: the pool of the clone that deploys
CLONE = "ATELIER_CLONE"  # for services that start a worker without a shell, which sets PWD


def enter() -> dict[str, str]:
    """Go to the worker's clone; return it as Prefect's own steps do.

    Raises:
        ArtifactError: There is no dvc.yaml: the worker was started somewhere else.
    """
    directory = Path(os.environ.get(CLONE) or os.environ.get("PWD") or Path.cwd())
    if not (directory / "dvc.yaml").is_file():
        raise ArtifactError(
            f"{directory} has no dvc.yaml; start the worker in the root of a clone, or name "
            f"one by {CLONE}"
        )
    os.chdir(directory)
    return {"directory": str(directory)}


def pool() -> str:
    """Return the name of this clone's pool and the end of its deployments: folder and hash."""
    place = f"{socket.gethostname()} {Path.cwd().resolve()}"
    short = hashlib.sha256(place.encode()).hexdigest()[:4]
    return f"{Path.cwd().name}-{short}"
