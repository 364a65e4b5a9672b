"""How much memory loading a base takes, beside the bytes that it then occupies.

``python -m benchmarks.base_loading FOLDER PRECISION``: what `starting` runs in a process of its
own. A tiny base of the same classes is loaded first, so that imports are not counted.
"""

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atelier.config.base import FluxNetwork
from atelier.config.model import ModelParams
from benchmarks.lines import Goal, Line, Size, figure_ratio

_ROOT = Path(__file__).parents[1]
_MB = 1e6
_SHARD = "60MB"
_LARGE: Mapping[Size, FluxNetwork] = {
    "full": FluxNetwork(
        kind="flux", double_blocks=2, single_blocks=4, heads=12, head_width=64,
        text_width=1792, pooled_width=768,
    ),
    "tiny": FluxNetwork(
        kind="flux", double_blocks=1, single_blocks=1, heads=4, head_width=64,
        text_width=512, pooled_width=64,
    ),
}  # fmt: skip
_SMALL = FluxNetwork(
    kind="flux", double_blocks=1, single_blocks=1, heads=2, head_width=16,
    text_width=16, pooled_width=16,
)  # fmt: skip


def lines(section: str, size: Size) -> Iterator[Line]:
    """Measure a base in the precision of its files, one that is converted, and a training's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _save(_SMALL, folder / "small")
        _save(_LARGE[size], folder / "large")
        for precision, words in (
            ("float32", "in float32, as its files are"),
            ("bfloat16", "in bfloat16, of files in float32"),
        ):
            found = _loaded(folder, precision, "whole")
            what = f"memory at most while a base in shards is loaded {words}"
            yield _line(section, what, found, "its bytes in memory", found["bytes"])
        found = _loaded(folder, "float32", "trained")
        what = "the same by a training whose pictures and prompts are encoded"
        larger = "the larger of its network, and its codec with encoders"
        yield _line(section, what, found, larger, found["larger"])


def _line(
    section: str, what: str, found: Mapping[str, float], against: str, reference: float
) -> Line:
    return Line(
        section, what, found["peak"] / _MB, "MB", against, reference / _MB,
        figure_ratio(found["peak"], reference), Goal("ratio", "≤", 1.15),
    )  # fmt: skip


def _save(network: FluxNetwork, folder: Path) -> None:
    """Write a base with random weights, its weights in several files."""
    from diffusers import AutoencoderKL

    from atelier.models.denoiser import quiet
    from atelier.models.small import pipelines

    with quiet():
        codec = AutoencoderKL(latent_channels=4, block_out_channels=(32,), norm_num_groups=8)
        built = pipelines.pipeline(network, codec.eval(), ["a quiet sea"], seed=0)
        built.save_pretrained(folder, max_shard_size=_SHARD)


def _loaded(folder: Path, precision: str, how: str) -> dict[str, float]:
    words = ["-W", "ignore", "-m", "benchmarks.base_loading", str(folder), precision, how]
    done = subprocess.run(
        [sys.executable, *words], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(folder: Path, precision: str, how: str) -> dict[str, float]:
    """Load, and return the bytes that it took at most, and those of what was loaded."""
    _load(folder / "small", precision, how)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = _resident("VmRSS")
    network, others = _load(folder / "large", precision, how)
    return {
        "peak": _resident("VmHWM") - before,
        "bytes": network + others,
        "larger": max(network, others),
    }


def _load(folder: Path, precision: str, how: str) -> tuple[float, float]:
    """Load a base; return the bytes of its network, and of its codec and encoders."""
    from atelier.models import loading

    painter = loading.load(_params(folder, precision))
    parts = painter.parts().components.values()
    others = sum(_bytes(part) for part in parts if hasattr(part, "parameters"))
    del parts
    if how == "trained":
        assert painter.identity  # for which all of them are read
        painter.release_encoders()
    return _bytes(painter.network), others


def _bytes(module: Any) -> float:
    return float(sum(one.numel() * one.element_size() for one in module.parameters()))


def _params(folder: Path, precision: str) -> ModelParams:
    return ModelParams.model_validate(
        {
            "family": "flux", "source": str(folder), "revision": None, "dtype": precision,
            "quantise": None, "pixels": 64, "text_tokens": 16, "text_chunks": 1,
            "buckets": None, "true_sizes": False,
        }
    )  # fmt: skip


def _resident(what: str) -> float:
    """Bytes of this process that are in memory now (``VmRSS``), or were at most (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {what}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measured(Path(sys.argv[1]), *sys.argv[2:])) + "\n")
