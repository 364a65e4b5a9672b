"""``python -m benchmarks.cache``: what opening and reading a large cache costs.

Fills a folder with entries of the shape of SDXL's latents at 1024 px, opens it again in a fresh
process as a resumed stage does, and reads batches at random.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from atelier.reporting import silent
from atelier.training import cache

_SHAPE = (4, 128, 128)
_BATCH = 8


def _keys(entries: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(entries)]


def _encode(keys: Sequence[str]) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(int(keys[0][:8], 16))
    return {"latents": torch.randn(len(keys), *_SHAPE, generator=source)}


def _anonymous_megabytes() -> int:
    """Memory of this process that is its own: pages of files can be given back at any time."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1024


def fill(folder: Path, entries: int) -> None:
    """Encode everything, and print how long it took."""
    start = time.perf_counter()
    cache.filled(folder, _keys(entries), _encode, batch=16, report=silent)
    size = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
    _say(f"{entries} entries, {size / 1e9:.2f} GB, filled in {_since(start)} s")


def read(folder: Path, entries: int, batches: int) -> None:
    """Open the finished cache and read batches; print times and memory."""
    before = _anonymous_megabytes()
    start = time.perf_counter()
    keys = _keys(entries)
    found = cache.filled(folder, keys, _encode, batch=16, report=silent)
    _say(f"opened in {_since(start)} s")
    column = cache.Column([(found, key) for key in keys], "latents")
    source = torch.Generator().manual_seed(0)
    for what in ("first reads, checked", "again"):
        start = time.perf_counter()
        source.manual_seed(0)
        for _ in range(batches):
            column[torch.randint(entries, (_BATCH,), generator=source)]
        each = (time.perf_counter() - start) / batches * 1000
        _say(f"a batch of {_BATCH} in {each:.1f} ms ({what})")
    _say(f"memory of its own: {before} MB before, {_anonymous_megabytes()} MB after")


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.2f}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # another process writes to it next


def main() -> None:
    """Fill in one process, read in another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the second process
    options = parser.parse_args()
    if options.folder is not None:
        read(options.folder, options.entries, options.batches)
        return
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.entries)
        numbers = ["--entries", str(options.entries), "--batches", str(options.batches)]
        again = [sys.executable, "-m", "benchmarks.cache", "--folder", folder, *numbers]
        subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
