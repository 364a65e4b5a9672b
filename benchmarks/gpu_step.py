"""How long a CPO-S step takes, and what it needs: networks of full size with random weights.

    python -m benchmarks.gpu_step --family sdxl --batch 8 --checkpointing --out sdxl.json
    python -m benchmarks.gpu_step --family flux --batch 4 --checkpointing --out flux.json
    python -m benchmarks.gpu_step --family sdxl --size toy --out toy.json      # on any machine
    python -m benchmarks.gpu_step --family flux --count-only --out count.json  # on any machine

No weights are downloaded: speed and memory do not depend on what a network has learned. The
step is the engine's own (θ1's two passes, the policy's pass and its gradient, clipping, AdamW)
on latents of pictures of ``--pixels``, with prompts of the family's full length. FLOPs are
those that torch counts in one such step, passes made again for checkpointing included; the
share is of what matrix products of this device reached in the same run.
"""

import argparse
import contextlib
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from atelier.config.base import FluxNetwork, SDXLNetwork
from atelier.config.training import LoRA, Times, Training
from atelier.models import adapters, codec
from atelier.models.denoiser import Denoiser, quiet
from atelier.models.small import pipelines
from atelier.objectives.cpo_s import CPOS
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Corpus
from atelier.training.ranks import ALONE

IMAGES = 16  # in the corpus of random latents
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TOY = {
    "flux": FluxNetwork(
        kind="flux", double_blocks=1, single_blocks=1, heads=2, head_width=16, text_width=16,
        pooled_width=16,
    ),
    "sdxl": SDXLNetwork(
        kind="sdxl", predicts="epsilon", widths=[16, 32], attention=[False, True], layers=1,
        head_width=16, groups=8, text_widths=[8, 16], pooled_width=16,
    ),
}  # fmt: skip
CHANNELS = {"flux": 16, "sdxl": 4}  # of latents
TOKENS = {"flux": 512, "sdxl": 77}
OBJECTIVE = CPOS(
    objective="cpo-s", loser_target="mirror-winner", winner="labelled", omega=6.0,
    teacher="sft", confidence="ignored", weighting="constant", learning_rate=5e-5,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a line, write JSON."""
    asked = parse(arguments)
    if asked.count_only:
        computed = count(asked)
        asked.out.write_text(json.dumps(computed, indent=2) + "\n", encoding="utf-8")
        sys.stdout.write(
            f"{asked.family} at {asked.pixels} px, computed: "
            f"{computed['forward_tflops']:.4g} TFLOP a pass, "
            f"{computed['step_tflops_per_image']:.4g} an image and CPO-S step\n"
        )
        return
    found = measure(asked)
    asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{found['family']} {found['size']}, batch {found['batch_images']}: "
        f"{found['step_seconds']:.3g} s a step, {found['images_per_second']:.3g} images/s, "
        f"{found['peak_memory_gb']:.3g} GB, {found['tflops_per_second']:.3g} TFLOP/s = "
        f"{found['share_of_peak']:.1%} of {found['matrix_peak_tflops']:.3g} measured\n"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_step", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--family", choices=sorted(TOY), required=True)
    parser.add_argument("--size", choices=["full", "toy"], default="full")
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4, help="images in a step")
    parser.add_argument("--images-at-once", type=int, help="of them in one pass; all if absent")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=10, help="measured, after --warm-up")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--count-only", action="store_true", help="count FLOPs, run nothing")
    parser.add_argument("--out", type=Path, required=True, help="JSON that is written")
    asked = parser.parse_args(arguments)
    if asked.size == "full" and not asked.count_only and not torch.cuda.is_available():
        parser.error(
            "--size full needs a CUDA device; --size toy and --count-only run on any machine"
        )
    return asked


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what the step costs, and under which conditions."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if asked.size == "full" else torch.float32
    peak = matrix_peak(device, dtype, 8192 if asked.size == "full" else 256)
    painter = built(asked, device, dtype)
    weights = sum(parameter.numel() for parameter in painter.network.parameters())
    lora = _lora(asked)
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    if asked.checkpointing:
        painter.network.enable_gradient_checkpointing()
    training = settings(asked)
    setup = Setup(painter, corpus(asked, painter), training, "theta1", "theta", 0.0)
    step = OBJECTIVE.step(setup)
    with adapters.learning(painter.network, "theta"):
        trained = adapters.weights(painter.network, "theta")
        flops = counted(step, training, trained, device)
        if asked.compile:
            torch._dynamo.config.recompile_limit = 64
            painter.network.compile_repeated_blocks()
        took = timed(step, training, trained, device, asked.warm_up)
    seconds = statistics.median(took)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "family": asked.family,
        "size": asked.size,
        "parameters": weights,
        "trained": sum(p.numel() for p in trained.values()),
        "pixels": asked.pixels,
        "batch_images": asked.batch,
        "images_at_once": asked.images_at_once,
        "rank": asked.rank,
        "precision": asked.precision,
        "optimizer": asked.optimizer,
        "gradient_checkpointing": asked.checkpointing,
        "compile": asked.compile,
        "steps": len(took),
        "step_seconds": seconds,
        "step_seconds_least": min(took),
        "step_seconds_most": max(took),
        "images_per_second": asked.batch / seconds,
        "peak_memory_gb": memory(device) / 1e9,
        "flops_per_step": flops,
        "tflops_per_second": flops / seconds / 1e12,
        "matrix_peak_tflops": peak / 1e12,
        "share_of_peak": flops / seconds / peak,
    }


def count(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the FLOPs of one image in a step, counted on tensors that have no content."""
    meta = torch.device("meta")
    painter = built(asked, meta, torch.bfloat16)
    painter.network.to(meta)
    weights = sum(parameter.numel() for parameter in painter.network.parameters())
    with meta:
        adapters.add(painter.network, "theta", _lora(asked), seed=0)
    if asked.checkpointing:
        painter.network.enable_gradient_checkpointing()
    random = corpus(asked, painter)
    one = torch.tensor([0])
    condition = random.condition(one, one, meta)
    noisy, time = random.latents[one].to(meta), torch.full((1,), 0.5, device=meta)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        painter.predict(noisy, time, condition)
    with (
        adapters.learning(painter.network, "theta"),
        FlopCounterMode(display=False) as learning,
    ):
        painter.predict(noisy, time, condition).mean().backward()
    once, policy = forward.get_total_flops(), learning.get_total_flops()
    return {
        "family": asked.family,
        "size": asked.size,
        "pixels": asked.pixels,
        "rank": asked.rank,
        "gradient_checkpointing": asked.checkpointing,
        "parameters": weights,
        "forward_tflops": once / 1e12,
        "policy_tflops": policy / 1e12,
        "step_tflops_per_image": (2 * once + policy) / 1e12,  # θ1 speaks twice
    }


def _lora(asked: argparse.Namespace) -> LoRA:
    return LoRA(
        rank=asked.rank,
        alpha=asked.rank,
        rslora=False,
        dora=False,
        dropout=0,
        targets=ATTENTION,
    )


def built(asked: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Denoiser:
    """A painter whose network has the family's size; its codec and encoders are toys."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(20, 3, 64, 64, generator=generator) * 2 - 1
    with quiet():
        painter = pipelines.painter(
            TOY[asked.family],
            codec.fit(pictures, 8, CHANNELS[asked.family]),
            ["a sea"],
            text_tokens=TOKENS[asked.family],
            text_chunks=1,
            seed=0,
        )
    if asked.size == "full":
        network = full(asked.family, device, dtype)
        painter.pipeline().register_modules(**{painter.component: network})
        painter.network = network
    painter.release_encoders()
    return painter


def full(family: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The network that is published, with random weights, made on the device."""
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            network = (
                FluxTransformer2DModel(guidance_embeds=True)  # its defaults are FLUX.1's
                if family == "flux"
                else UNet2DConditionModel(
                    sample_size=128,
                    block_out_channels=(320, 640, 1280),
                    down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
                    up_block_types=(*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
                    attention_head_dim=(5, 10, 20),
                    transformer_layers_per_block=(1, 2, 10),
                    use_linear_projection=True,
                    cross_attention_dim=2048,
                    addition_embed_type="text_time",
                    addition_time_embed_dim=256,
                    projection_class_embeddings_input_dim=2816,
                )
            )
    finally:
        torch.set_default_dtype(before)
    return network.requires_grad_(False).eval()


def corpus(asked: argparse.Namespace, painter: Denoiser) -> Corpus:
    """Random latents and conditions of the right shapes."""
    generator = torch.Generator().manual_seed(0)
    config = painter.network.config
    if asked.family == "flux":
        width, pooled = config.joint_attention_dim, config.pooled_projection_dim
    else:
        width = config.cross_attention_dim
        sizes = 6 * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
    side = asked.pixels // 8
    prompts: Mapping[str, Tensor] = {
        "tokens": torch.randn(4, TOKENS[asked.family], width, generator=generator),
        "pooled": torch.randn(4, pooled, generator=generator),
    }
    every = torch.ones(IMAGES, 1, dtype=torch.long)
    return Corpus(
        latents=torch.randn(IMAGES, CHANNELS[asked.family], side, side, generator=generator),
        prompts=prompts,
        rows={"caption": every, "winner": 2 * every, "loser": 3 * every},
        empty=0,
    )


def settings(asked: argparse.Namespace) -> Training:
    """The training block of one long enough run."""
    return Training(
        steps=asked.warm_up + asked.steps + 1,  # the last one measures drift: left out
        batch_images=asked.batch,
        images_at_once=asked.images_at_once,
        warmup_steps=0,
        schedule="constant",
        optimizer=asked.optimizer,
        weight_decay=0.0,
        clip_norm=1.0,
        ema_decay=None,
        precision=asked.precision,
        gradient_checkpointing=asked.checkpointing,
        compile=asked.compile,
        times=Times(uniform_share=1.0, logit_mean=0.0, logit_std=1.0, shift=1.0),
        offset_noise=0,
        seed=0,
        checkpoint_steps=10**9,
        checkpoints_kept=1,
        report_steps=10**9,
        grids=None,
        explosion=None,
        drift_stop=False,
    )


def counted(
    step: loop.Step, training: Training, trained: Mapping[str, Tensor], device: torch.device
) -> int:
    """FLOPs of one step's passes and gradients, as torch counts them."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(training.precision)
    with _countable(device), FlopCounterMode(display=False) as counter:
        for part in ALONE.parts(training.batch_images, training.images_at_once):
            with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
                loss, _ = step(0, False, part)
                loss.backward()
    for parameter in trained.values():
        parameter.grad = None
    return int(counter.get_total_flops())


def _countable(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Attention as products of matrices on a CPU, whose fused one torch cannot count."""
    if device.type != "cpu":
        return contextlib.nullcontext()
    return sdpa_kernel(SDPBackend.MATH)  # type: ignore[no-any-return]


def timed(
    step: loop.Step,
    training: Training,
    trained: Mapping[str, Any],
    device: torch.device,
    warm_up: int,
) -> list[float]:
    """Seconds of each step after the warm-up, the last one left out."""
    moments: list[float] = []

    def report(done: int, values: Mapping[str, float]) -> None:
        _wait(device)
        if done == warm_up and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        loop.fit(
            trained, step, learning_rate=OBJECTIVE.learning_rate, params=training,
            folder=Path(folder), report=report,
        )  # fmt: skip
    kept = moments[warm_up - 1 : -1]
    return [later - before for before, later in itertools.pairwise(kept)]


def matrix_peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of products of square matrices, the best of some, in the network's precision."""
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        _wait(device)
        started = time.perf_counter()
        for _ in range(5):
            one @ two
        _wait(device)
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * side**3 / best


def memory(device: torch.device) -> int:
    """The most bytes in use during the measured steps; on a CPU, what the process has."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return int(psutil.Process().memory_info().rss)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
