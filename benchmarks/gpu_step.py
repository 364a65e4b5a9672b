"""How fast a GPU trains: CPO-S, DPO and DiffusionNFT on SDXL, Z-Image and FLUX, in one run.

    python -m benchmarks.gpu_step                       # nine cases, and flags; on a GPU
    python -m benchmarks.gpu_step --read FILE           # what a run wrote, on any machine
    python -m benchmarks.gpu_step --count-only          # FLOPs of the nine, on any machine
    python -m benchmarks.gpu_step --size toy --out FILE # all of it in seconds, on a CPU

The networks have their published size and random weights, in bfloat16. A step is the engine's
own: the passes of the objective, clipping, AdamW, on latents of ``--pixels`` and prompts of
full length. Each objective is measured with the plain settings, then each flag with the first
objective. A family has its share of ``--minutes``, and a case its share of what is left of
that: a slow one stops with the steps it has. What fails is a line of the table and stops
nothing else; a case that takes its process along stops that process alone.

MFU is what the passes of an image *need* (``atelier.models.costs.utilization``), times images a
second, by the data sheet's peak in bfloat16. Passes that checkpointing makes again are not
needed. They are in TFLOP/s and in its share of what products of matrices reach in the same run.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from atelier import atomic
from atelier.errors import AtelierError
from atelier.models.costs import measured_steps, utilization
from atelier.models.costs.measured_steps import Measured, Step
from atelier.models.costs.pass_cost import PassCost
from atelier.objectives.cpo_s import CPOS
from atelier.objectives.dpo import DPO
from atelier.objectives.nft import NFT
from atelier.objectives.objective import ObjectiveParams
from benchmarks import document, gpu_cases, shapes
from benchmarks.lines import quantity
from tasks.run import paths

OBJECTIVES: Mapping[str, ObjectiveParams] = {
    "cpo-s": CPOS(
        objective="cpo-s", loser_target="mirror-winner", winner="labelled", omega=6.0,
        teacher="sft", confidence="ignored", weighting="constant", learning_rate=5e-5,
    ),
    "dpo": DPO(objective="dpo", beta=5000.0, learning_rate=5e-5),
    "nft": NFT(
        objective="nft", old="base", beta=1.0, clip=5.0, anchor=1e-4, learning_rate=5e-5
    ),
}  # fmt: skip
NAMES = {"cpo-s": "CPO-S", "dpo": "DPO", "nft": "DiffusionNFT"}
# What may take its process along comes last.
FLAGS = ("adamw-fused", "checkpointing", "flash", "cudnn", "fp8", "compile")
_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, measure or read; print the table, and write it."""
    asked = parse(arguments)
    if asked.count_only:
        name, table = "gpu_counts", counted_table(asked)
    else:
        found = measured_steps.read(asked.read) if asked.read else _measured(asked)
        found = with_rates(found)
        _write(asked.out, found)
        name, table = "gpu_step", measured_table(found)
    sys.stdout.write(table)
    if asked.document is not None:
        document.fill(asked.document, {name: table})


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_step", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--families", nargs="+", choices=list(shapes.SHAPES), default=list(shapes.SHAPES))
    add("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    add("--flags", nargs="*", choices=FLAGS, default=FLAGS, help="measured on and off")
    add("--size", choices=["full", "toy"], default="full")
    add("--minutes", type=float, default=8.0, help="for all that is measured")
    add("--steps", type=int, default=10, help="timed in a case, at most")
    add("--warm-up", type=int, default=2, help="steps before them")
    add("--pixels", type=int, help="of a picture's side: 1024, of toys 64")
    add("--batch", type=int, help="images in a step: SDXL 8, Z-Image and FLUX 4, toys 2")
    add("--images-at-once", type=int, help="of them in one pass; all if absent")
    add("--rank", type=int, help="of the LoRA: 64, of toys 2")
    add("--precision", choices=["fp32", "bf16", "fp16"], help="of passes: bf16, of toys fp32")
    add("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    add("--start", choices=["fork", "spawn"], default="fork", help="spawn, if CUDA needs it")
    add("--count-only", action="store_true", help="count FLOPs, run nothing")
    add("--read", type=Path, metavar="FILE", help="take what another run wrote; run nothing")
    add(
        "--out", type=Path, help=f"JSON that is written: {paths.GPU_STEP}, which estimates read"
    )
    add("--document", type=Path, help="whose table is written: docs/performance.md")
    asked = parser.parse_args(arguments)
    toy, runs = asked.size == "toy", not (asked.count_only or asked.read)
    if toy and runs and asked.out is None:
        parser.error("--size toy needs --out, so that no estimate takes toys for the device")
    if runs and not toy and not torch.cuda.is_available():
        parser.error(
            "--size full needs a CUDA device; --size toy, --count-only and --read run on any "
            "machine"
        )
    for name, full, small in (
        ("pixels", 1024, 64), ("rank", 64, 2), ("precision", "bf16", "fp32"),
        ("out", paths.GPU_STEP, None), ("document", _DOCUMENT, None),
    ):  # fmt: skip
        if getattr(asked, name) is None:
            setattr(asked, name, small if toy else full)
    return asked


def cases(asked: argparse.Namespace, family: str) -> list[Step]:
    """Return what is measured of a family: the objectives, then flags with the first one."""
    plain = [_case(asked, family, one) for one in asked.objectives]
    return plain + [_case(asked, family, asked.objectives[0], flag) for flag in asked.flags]


def _case(asked: argparse.Namespace, family: str, objective: str, flag: str = "") -> Step:
    changes: Mapping[str, Mapping[str, Any]] = {
        "": {},
        "adamw-fused": {"optimizer": "adamw-fused"},
        "checkpointing": {"gradient_checkpointing": not asked.checkpointing},
        "flash": {"attention": "flash"},
        "cudnn": {"attention": "cudnn"},
        "fp8": {"quantise": "fp8"},
        "compile": {"compile": True},
    }
    passes = OBJECTIVES[objective].passes(1)
    usual = 2 if asked.size == "toy" else shapes.SHAPES[family].batch
    plain = {
        "optimizer": "adamw", "gradient_checkpointing": asked.checkpointing, "compile": False,
        "attention": None, "quantise": None,
    }  # fmt: skip
    return Step.model_validate(
        {
            "family": family,
            "objective": objective,
            "policy_passes": float(passes.policy),
            "frozen_passes": float(passes.frozen),
            "flag": "".join(f"{k}: {str(v).lower()}" for k, v in changes[flag].items()),
            "batch_images": asked.batch or usual,
            "images_at_once": asked.images_at_once,
            "pixels": asked.pixels,
            "rank": asked.rank,
            "precision": asked.precision,
            **plain,
            **changes[flag],
        }
    )


def _measured(asked: argparse.Namespace) -> Measured:
    """Measure all cases, and write what there is after each."""
    plan = gpu_cases.Plan(
        OBJECTIVES, asked.size, asked.minutes, asked.steps, asked.warm_up, asked.start
    )
    families = [cases(asked, family) for family in asked.families]
    return gpu_cases.measure(plan, families, lambda found: _write(asked.out, found))


def _write(file: Path, found: Measured) -> None:
    atomic.write(file, found.model_dump_json(indent=2) + "\n")


def with_rates(found: Measured) -> Measured:
    """Return the figures with FLOP/s and their shares, which are counted here."""
    peak = utilization.peak_of(found.device)
    steps = []
    for one in found.steps:
        rates: dict[str, float | None] = {}
        if one.seconds_per_image is not None:
            needed, made = (
                flops(one, found.size, needed=only) / one.seconds_per_image
                for only in (True, False)
            )
            matrix = found.matrix_tflops
            rates = {
                "tflops": made / 1e12,
                "mfu": needed / peak if peak else None,
                "matrix_share": made / 1e12 / matrix if matrix else None,
            }
        steps.append(one.model_copy(update=rates))
    return found.model_copy(update={"steps": tuple(steps)})


def flops(case: Step, size: shapes.Size, *, needed: bool) -> float:
    """Return the FLOPs of an image in a step, counted on torch's meta device.

    Args:
        case: Which.
        size: Of the network.
        needed: Whether passes that checkpointing makes again are left out.
    """
    one = cost(case, size, again=case.gradient_checkpointing and not needed)
    return case.policy_passes * one.policy + case.frozen_passes * one.frozen


def cost(case: Step, size: shapes.Size, *, again: bool) -> PassCost:
    """Return what an image costs in the network; counted once for cases that are alike."""
    return _cost(case.family, size, case.pixels, case.rank, again)


@cache
def _cost(family: str, size: shapes.Size, pixels: int, rank: int, again: bool) -> PassCost:
    return shapes.cost(family, size, pixels, rank, gradient_checkpointing=again)


def counted_table(asked: argparse.Namespace) -> str:
    """Return the nine cases in FLOPs, as Markdown."""
    heads = (
        f"{asked.pixels} px, computed", "weights", "TFLOP a pass", "passes of an image",
        "TFLOP an image and step", "with gradient checkpointing",
    )  # fmt: skip
    return document.rows(heads, _counted(asked))


def _counted(asked: argparse.Namespace) -> Iterator[Sequence[str]]:
    for family in asked.families:
        weights = f"{shapes.weights(family, asked.size):,}"
        for objective in asked.objectives:
            case = _case(asked, family, objective)
            again = case.model_copy(update={"gradient_checkpointing": True})
            yield (
                _name(case),
                weights,
                quantity(cost(case, asked.size, again=False).frozen / 1e12, ""),
                f"{case.frozen_passes:g}, and {case.policy_passes:g} with its gradient",
                quantity(flops(again, asked.size, needed=True) / 1e12, ""),
                quantity(flops(again, asked.size, needed=False) / 1e12, ""),
            )


def measured_table(found: Measured) -> str:
    """Return all cases in their order, as Markdown, and what they were measured on."""
    heads = (
        "case", "images in a step", "an image", "images/s", "memory, at most", "TFLOP/s", "MFU",
        "of products of matrices", "times as fast as plain",
    )  # fmt: skip
    rate = "" if found.matrix_tflops is None else quantity(found.matrix_tflops, "TFLOP/s")
    return (
        f"Measured on {found.device}, torch {found.torch}. Products of matrices: {rate or '–'}."
        "\n\n" + document.rows(heads, (_row(one, found) for one in found.steps))
    )


def _row(one: Step, found: Measured) -> Sequence[str]:
    first = (_name(one), str(one.batch_images))
    if one.seconds_per_image is None or one.peak_memory_gb is None:
        return (*first, f"failed: {one.failure}", *["–"] * 6)
    plain = next(
        other.seconds_per_image
        for other in found.steps
        if (other.family, other.objective, other.flag) == (one.family, one.objective, "")
    )
    times = plain / one.seconds_per_image if one.flag and plain else None
    return (
        *first,
        quantity(one.seconds_per_image, "s"),
        quantity(1 / one.seconds_per_image, ""),
        quantity(one.peak_memory_gb, "GB"),
        "–" if one.tflops is None else quantity(one.tflops, ""),
        "–" if one.mfu is None else quantity(one.mfu, "%"),
        "–" if one.matrix_share is None else quantity(one.matrix_share, "%"),
        "–" if times is None else quantity(times, ""),
    )


def _name(case: Step) -> str:
    flag = f", `{case.flag}`" if case.flag else ""
    return f"{shapes.SHAPES[case.family].name}: {NAMES[case.objective]}{flag}"


if __name__ == "__main__":
    try:
        main()
    except AtelierError as error:
        sys.exit(f"Error: {error}")
