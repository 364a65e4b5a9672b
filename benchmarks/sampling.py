"""Painting for evaluation, against the calls of the network that it cannot do without."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from atelier.models import adapters, sampling
from atelier.models.denoiser import Denoiser
from atelier.reporting import silent
from benchmarks import toys
from benchmarks.lines import Goal, Line, Size, Turns, taking

SECTION = "sampling"
_ROUNDS: Mapping[Size, int] = {"full": 3, "tiny": 1}
_STEPS: Mapping[Size, int] = {"full": 30, "tiny": 2}
_BATCH = 4
_GUIDANCE = 4.0


def lines(size: Size) -> Iterator[Line]:
    """Measure both families, and NPO's two branches."""
    for family, shaped in (("sdxl", "SDXL-shaped"), ("flux", "FLUX-shaped")):
        built = toys.painter(toys.TOYS[size][family])
        built.network.requires_grad_(False)
        painted = _painting(built, toys.TOYS[size][family].pixels, size)
        calls = _beside_its_calls(built, painted, rounds=_ROUNDS[size])
        yield Line(
            SECTION, f"painting, {shaped}: prompts read, sampler, codec and bytes",
            calls.figure, "s", "the same calls of the network alone", calls.reference,
            calls.ratio, Goal("ratio", "≤", 1.05),
            note=f"{_STEPS[size]} steps, as in the profiles sdxl and flux",
        )  # fmt: skip
    for seed, name in enumerate(("good", "bad")):
        adapters.add(built.network, name, toys.lora(16), seed=seed)

    turns = _two_branches(built, painted)
    yield Line(
        SECTION, "NPO's two branches: two states of one base, a pass each, half the rows each",
        turns.figure, "s", "ordinary guidance by one state, in one batch", turns.reference,
        turns.ratio, Goal("ratio", "≤", 1.05),
    )  # fmt: skip


def _painting(built: Denoiser, pixels: int, size: Size) -> Callable[[], None]:
    said = toys.prompts("caption")[:_BATCH]

    def paint() -> None:
        for _ in sampling.paint(
            built, said, range(len(said)), sampling.Sampling(_STEPS[size], _GUIDANCE),
            pixels=pixels, batch_images=_BATCH, report=silent,
        ):  # fmt: skip
            pass

    return paint


def _beside_its_calls(built: Denoiser, painted: Callable[[], None], *, rounds: int) -> Turns:
    """Time painting, and each of its calls of the network, made once more right after it.

    So what else the machine does falls on both, however long a painting takes.
    """
    spent = 0.0
    again = False

    def call_again(network: Any, args: Any, kwargs: Any, answer: Any) -> None:
        nonlocal spent, again
        del answer
        if not again:
            again = True
            with torch.no_grad():
                spent += taking(lambda: network(*args, **kwargs))
            again = False

    hook = built.network.register_forward_hook(call_again, with_kwargs=True)
    ours, theirs = [], []
    for turn in range(1 + rounds):
        spent = 0.0
        everything = taking(painted)
        if turn:
            ours.append(everything - spent)
            theirs.append(spent)
    hook.remove()
    return Turns(ours, theirs)


def _two_branches(built: Denoiser, painted: Callable[[], None]) -> Turns:
    """Each call of a painting in turn, by two states and by one."""
    calls: list[tuple[Any, Any]] = []
    hook = built.network.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    painted()
    hook.remove()
    found: tuple[list[float], list[float]] = ([], [])
    with adapters.use(built.network, "good"), torch.no_grad():
        for args, kwargs in calls:
            call = functools.partial(built.network, *args, **kwargs)
            with sampling.branches(built, "good", {"good": 0.5, "bad": 1.0}):
                found[0].append(taking(call))
            found[1].append(taking(call))
    return Turns(*found)
