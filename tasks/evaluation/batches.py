"""``generate``'s pictures divided among workers, which paint whole batches of them.

Nothing is painted otherwise than in one process: the same batches, noise and prompts, the same
number of threads. What workers paint lies where the stage looks for pictures of an interrupted
run, so the stage finds all of them. A worker may have a clone of its own, and refuses to paint
if it is not the same one.
"""

import functools
import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from atelier.config.fields import Count, Params
from atelier.config.profile import read_in_force
from atelier.errors import ArtifactError
from atelier.models.denoiser import Denoiser
from atelier.reporting import silent
from tasks import code as own_code
from tasks.annotation import shards
from tasks.evaluation import generation, jobs
from tasks.evaluation.generation import Batch, GenerationJob
from tasks.run import kept, paths, resume

_PAINTS = ("torch", "diffusers", "transformers", "peft", "safetensors", "accelerate")


class Shard(Params):
    """What one worker paints at once.

    Attributes:
        name: Its place among the others, as 3/8.
        work: Hash of what decides how pictures look.
        code: ``code()`` of who asks.
        threads: Of torch, in who asks; sums depend on it in their last bits.
        batches: Those that are not painted yet.
        pictures: How many they hold.
    """

    name: str
    work: str
    code: str
    threads: Count
    batches: list[Batch]
    pictures: Count


def plan(count: int) -> list[Shard]:
    """Part the batches that are not painted yet into ``count`` shards of nearly one size.

    Every ``count``-th batch goes to the same shard, so that each has some of every candidate:
    not all cost the same. Fewer batches than shards make fewer shards.

    Raises:
        ArtifactError: What a stage before ``generate`` makes is absent.
        ParamsError: The profile or what it names does not fit.
    """
    job = _job()
    waiting = job.missing(kept.to_make(paths.GENERATE, job.keys))
    parts = [part for part in (waiting[start::count] for start in range(count)) if part]
    return [
        Shard(
            name=f"{number}/{len(parts)}",
            work=_work(job),
            code=code(),
            threads=torch.get_num_threads(),
            batches=part,
            pictures=sum(len(job.rows(batch)) for batch in part),
        )
        for number, part in enumerate(parts, start=1)
    ]


def paint(shard: Shard) -> list[tuple[str, int, bytes]]:
    """Paint a shard; return candidate, index and PNG of each picture. Runs in a worker.

    Raises:
        ArtifactError: This clone has other code, settings, weights or data than who asks.
    """
    job = _job()
    _refuse_another_clone(shard, job)
    before = torch.get_num_threads()
    torch.set_num_threads(shard.threads)
    try:
        painter = _painter(Path.cwd(), shard.work)
        return list(generation.paint(painter, job, shard.batches, silent))
    finally:
        torch.set_num_threads(before)


def take_in(painted: Sequence[tuple[str, int, bytes]]) -> int:
    """Put what a worker painted where the stage finds it; return how many pictures."""
    return generation.keep(_job(), painted)


def code() -> str:
    """Return a hash of the code that paints, of its libraries, and of the processor's kind.

    Where it is the same, one batch becomes the same pictures to the last bit.
    """
    digest = hashlib.sha256(f"{shards.code()} {_processor()}".encode())
    for package in _PAINTS:
        digest.update(f" {package} {version(package)}".encode())
    digest.update(own_code.packages().hash_of("tasks.evaluation.generation").encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _painter(clone: Path, work: str) -> Denoiser:
    """Load the painters once a worker, not once a shard; another job replaces them."""
    del clone, work  # what they are made of; here they are only the key
    job = _job()
    return generation.load(job, job.keys)


def _job() -> GenerationJob:
    return jobs.of(read_in_force(paths.PARAMS))


def _work(job: GenerationJob) -> str:
    return resume.key(json.dumps(dict(job.keys)))


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def _refuse_another_clone(shard: Shard, job: GenerationJob) -> None:
    where = f"the worker in {platform.node()}:{Path.cwd()}"
    if shard.code != code():
        raise ArtifactError(
            f"{where} has another code, Python, library or kind of processor than the clone "
            "that asks it, and might paint otherwise; bring it to the same commit, `pip "
            "install -c constraints.txt -e '.[scale]'`, on a machine of the same kind, and "
            "start it again"
        )
    if shard.work != _work(job):
        raise ArtifactError(
            f"{where} has other settings, weights or captions than the clone that asks it; "
            f"bring {paths.PARAMS}/ and dvc.lock to the same commit, `dvc pull`, and start it "
            "again"
        )
