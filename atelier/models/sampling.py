"""Sampling: prompts to pictures, each from its own seed, independent of its batch."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier import out_of_memory
from atelier.models.denoiser import MASK
from atelier.models.sampling_settings import Sampling as Sampling
from atelier.reporting import Report

if TYPE_CHECKING:
    from atelier.models.adapters import State
    from atelier.models.denoiser import Denoiser


def paint(
    painter: "Denoiser",
    prompts: Sequence[str],
    seeds: Sequence[int],
    how: Sampling,
    *,
    pixels: int,
    batch_images: int,
    report: Report,
    against: Sequence[str] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Paint one picture a prompt, in order.

    Args:
        painter: In the state (base or adapter) to sample from.
        prompts: One a picture.
        seeds: Of each picture's starting noise.
        how: Steps and guidance.
        pixels: Side of the square pictures.
        batch_images: Pictures painted at once.
        report: Receives how many are done.
        against: Negative prompts of guidance, one per picture; None for the empty prompt.

    Yields:
        Pictures ``[H, W, 3]``, 8 bits a channel.

    Raises:
        RoomError: The device has too little memory.
    """
    empty = painter.encode_texts([""])
    for start in range(0, len(prompts), batch_images):
        rows = slice(start, start + batch_images)
        noise = starting_noise(painter.latent_shape(pixels), seeds[rows])
        device = next(painter.network.parameters()).device
        with _explained(batch_images):
            latents = painter.sample(
                noise.to(device),
                painter.encode_texts(prompts[rows]),
                empty if against is None else painter.encode_texts(against[rows]),
                steps=how.steps,
                guidance=how.guidance,
                distilled_guidance=how.distilled_guidance,
            )
            painted = to_bytes(painter.decode_latents(latents))
        yield from painted
        report(min(start + batch_images, len(prompts)), {})


def _explained(batch_images: int) -> contextlib.AbstractContextManager[None]:
    """What to change where a batch of pictures does not fit."""
    half = f"generate.batch_images: {batch_images // 2} (now {batch_images})"
    return out_of_memory.explained(
        f"Painting {batch_images} picture(s) at once",
        [
            *([half] if batch_images > 1 else []),
            "model.codec.tile_pixels: 512, which decodes in tiles",
            "model.dtype: bfloat16 (if it is float32)",
            "model.quantise: int8, then nf4 (CUDA)",
            "a smaller model.pixels",
        ],
        then="Pictures that the stage generate has painted are kept",
    )


@contextlib.contextmanager
def branches(painter: "Denoiser", positive: "State", negative: "State") -> Iterator[None]:
    """Inside, guidance compares two states of one base: Diffusion-NPO's sampling.

    ``f_neg(empty) + g (f_pos(y) - f_neg(empty))`` (exact; arXiv:2505.11245) with
    ``theta_neg = base + (1 - w) delta_pos + delta_npo``: the rows of a pass that read the empty
    prompt are predicted in the negative state, the others in the positive one. The families'
    own samplers run unchanged, so with two equal states this is ordinary guidance.

    Prompts must not be empty, and the negative prompt must be: rows are distinguished by the
        empty prompt's ``pooled`` condition, or by its ``tokens`` where there is none.
        Qwen-Image's sampler rescales what guidance gives.

    Args:
        painter: With the adapters of both states.
        positive: State of the positive branch.
        negative: State of the negative branch.
    """
    from atelier.models.adapters import use

    network = painter.network
    condition = painter.encode_texts([""])
    marker = condition.get("pooled", condition["tokens"])[0]
    read = condition[MASK][0] > 0 if MASK in condition else None
    own_forward = network.__dict__.get("forward")
    forward = network.forward

    def predict(rows: Tensor, state: "State", args: Any, kwargs: Any) -> Any:
        chosen = [_rows_of(value, rows, len(rows)) for value in (args, kwargs)]
        with use(network, state):
            return forward(*chosen[0], **chosen[1])[0]

    def split(*args: Any, **kwargs: Any) -> Any:
        empty = _empty((*args, kwargs), marker, read)
        if empty.all() or not empty.any():
            with use(network, negative if empty.all() else positive):
                return forward(*args, **kwargs)
        led = predict(~empty, positive, args, kwargs)
        away = predict(empty, negative, args, kwargs)
        return (_interleaved(empty, led, away),)

    network.forward = split
    try:
        yield
    finally:
        del network.forward
        if own_forward is not None:
            network.forward = own_forward


def _empty(arguments: Sequence[Any], marker: Tensor, read: Tensor | None) -> Tensor:
    """Which rows of a network's arguments read the prompt that ``marker`` is of, ``[B]``.

    Args:
        arguments: Tensors with a row, or lists with an entry, for each picture, and others.
        marker: The prompt's condition, one row.
        read: Which of its tokens are no padding, where the family masks.
    """
    values: list[Any] = [*arguments]
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, Tensor) and value.shape[1:] == marker.shape:
            found.append((value == marker.to(value)).flatten(1).all(1))
        elif read is not None and _are_captions(value, marker):
            own = marker[read].to(value[0])
            found.append(torch.tensor([torch.equal(one, own) for one in value]))
    if len(found) != 1:
        raise ValueError(
            f"expected one condition [B, {', '.join(map(str, marker.shape))}] of prompts, got "
            f"{len(found)}"
        )
    return found[0]


def _are_captions(value: Any, marker: Tensor) -> bool:
    """Whether this is a list of prompts' tokens, each without its padding, ``[L', D]``."""
    return isinstance(value, list) and all(
        isinstance(one, Tensor)
        and one.dim() == marker.dim()
        and one.shape[1:] == marker.shape[1:]
        for one in value
    )


def _interleaved(second: Tensor, one: Any, other: Any) -> Any:
    """Rows or entries of both in their order; ``second`` says which are of the other."""
    if isinstance(one, list):
        both = iter(one), iter(other)
        return [next(both[which]) for which in second.long().tolist()]
    whole = torch.empty((len(second), *one.shape[1:]), dtype=one.dtype, device=one.device)
    whole[~second], whole[second] = one, other
    return whole


def _rows_of(value: Any, rows: Tensor, every: int) -> Any:
    """The given rows of all that has one a picture, whatever it is packed in."""
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == every:
        return value[rows.to(value.device)]
    if isinstance(value, list) and len(value) == every:
        return [one for one, chosen in zip(value, rows.tolist(), strict=True) if chosen]
    if isinstance(value, dict):
        return {key: _rows_of(one, rows, every) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_rows_of(one, rows, every) for one in value)
    return value


def starting_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Return standard normal noise, ``[B, C, H, W]``, each image from its own seed."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def to_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """Return pixels in [-1, 1], ``[B, 3, H, W]``, as ``[B, H, W, 3]`` of 8 bits."""
    scaled = (pixels.clamp(-1, 1) + 1) * 127.5
    array: NDArray[np.uint8] = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return array


def to_pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures ``[B, H, W, 3]`` of 8 bits as pixels in [-1, 1], ``[B, 3, H, W]``."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
