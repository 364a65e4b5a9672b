"""The concurrency limit that hands out GPUs. One that was never created limits nothing."""

import shutil
import subprocess

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound

GPU = "gpu"


def ensure_gpu() -> None:
    """Create the limit ``gpu``, a slot for each GPU; one that is there is an operator's."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=GPU, limit=gpus(), slot_decay_per_second=0.0)
            )


def gpus() -> int:
    """Return the GPUs of this machine; 1 where there is none, for the CPU plays its part."""
    if shutil.which("nvidia-smi") is None:
        return 1
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return max(1, listed.stdout.count("GPU "))
