"""Pull step of deployments: a flow runs in the clone in which its worker was started.

prefect.yaml uses it because ``{{ $PWD }}`` would be the folder of the person who deployed.
"""

import os
from pathlib import Path

from atelier.errors import ArtifactError

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
