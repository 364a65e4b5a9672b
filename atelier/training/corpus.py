"""Training data: encoded images, prompts and pairs, and the batch of each step.

Everything random is drawn for the whole batch of a step, and then the requested rows are
selected. So processes and passes that share a batch get the rows that a single one would have
drawn.

Shapes: ``N`` images in the corpus, ``B`` in a batch, ``C H W`` latents, ``V`` prompts an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atelier.config.training import Training
from atelier.errors import ParamsError
from atelier.models.denoiser import FRAME, Condition, Denoiser, sent
from atelier.training.loop import WHOLE, batch_rows, bucket_turn, draw_times, generator


class Rows(Protocol):
    """Tensors by row: one in memory, or a ``cache.Column`` on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Corpus:
    """Everything that training reads, encoded.

    Attributes:
        latents: Clean latents, float32 ``[N, C, H, W]``; H and W are those of a bucket.
        prompts: Conditions of all distinct prompts, ``[U, ...]``.
        rows: For each role (``labelled``, ``caption``, ``positive``, …) the prompts of each
            image as rows of ``prompts``, long ``[N, V]``.
        empty: Row of the empty prompt.
        buckets: Images of one size, rows of ``latents``; None: all are.
        frames: Original height and width and the crop's top and left, in pixels,
            ``[N, 4]``, for families that read them; None: no family gets them.
        omegas: Strength of each contrast, ``[N, V]``, where it differs by root.
    """

    latents: Rows
    prompts: Mapping[str, Rows]
    rows: Mapping[str, Tensor]
    empty: int
    buckets: Sequence[Tensor] | None = None
    frames: Tensor | None = None
    omegas: Tensor | None = None

    def condition(self, prompts: Tensor, images: Tensor, device: torch.device) -> Condition:
        """Return the conditions of prompt rows ``[B]`` for image rows ``[B]`` on ``device``."""
        found = {name: sent(rows[prompts], device) for name, rows in self.prompts.items()}
        if self.frames is not None:
            found[FRAME] = sent(self.frames[images], device)
        return found

    def batch(self, images: int, step: int, seed: int) -> Tensor:
        """Return which images a step sees, ``[images]``, all of one size."""
        return _batch(len(self.latents), self.buckets, images, step, seed)

    def emptied(self, prompts: Tensor, dropped: Tensor) -> Tensor:
        """Return prompt rows ``[B]``, the empty prompt's where ``dropped``, bool ``[B]``."""
        return torch.where(dropped, torch.full_like(prompts, self.empty), prompts)


@dataclass(frozen=True)
class Pairs:
    """Pairs of the corpus' images, a better and a worse one.

    Attributes:
        win: Row of the better image of each pair, long ``[P]``.
        lose: Row of the worse one, long ``[P]``.
        prompts: Row of the caption that both are trained on, long ``[P]``.
        weights: How much each pair counts, float32 ``[P]``.
        buckets: Pairs of pictures of one size, rows of the above; None: all are.
    """

    win: Tensor
    lose: Tensor
    prompts: Tensor
    weights: Tensor
    buckets: Sequence[Tensor] | None = None

    def batch(self, pairs: int, step: int, seed: int) -> Tensor:
        """Return which pairs a step sees, ``[pairs]``, all pictures of one size."""
        return _batch(len(self.win), self.buckets, pairs, step, seed)


def draw(
    painter: Denoiser, corpus: Corpus, params: Training, step: int, part: slice = WHOLE
) -> tuple[Tensor, Tensor, Tensor, Tensor, torch.Generator]:
    """Return images, their rows, noise and times of part of a step's batch, and a generator.

    The generator has drawn for the whole batch; a caller that draws more from it must, too.
    """
    batch = corpus.batch(params.batch_images, step, params.seed)
    rows = batch[part]
    source = generator(params.seed, step, "step")
    clean = corpus.latents[rows]
    noise, time = draw_noise(clean, len(batch), params, source, part)
    device = next(painter.network.parameters()).device
    return sent(clean, device), rows, sent(noise, device), sent(time, device), source


def draw_noise(
    clean: Tensor, every: int, params: Training, source: torch.Generator, part: slice
) -> tuple[Tensor, Tensor]:
    """Return noise and times of part of a batch of ``every`` latents like ``clean``.

    Offset noise lifts or lowers a channel as a whole, which plain noise hardly does, so that
    very dark and very bright pictures are learned too (N. Guttenberg 2023, "Diffusion with
    Offset Noise").
    """
    shape = (every, *clean.shape[1:])
    noise = torch.randn(shape, generator=source, dtype=torch.float32)
    times = draw_times(every, params.times, source)
    if params.offset_noise > 0:
        level = torch.randn((*shape[:2], *[1] * (len(shape) - 2)), generator=source)
        noise = noise + params.offset_noise * level
    return noise[part].to(clean.dtype), times[part].to(clean.dtype)


def pairs_of(part: slice) -> slice:
    """Return which pairs the images of ``part`` of a batch are.

    Raises:
        ParamsError: They are no whole pairs.
    """
    ends = [part.start, part.stop]
    if any(end is not None and end % 2 for end in ends):
        raise ParamsError(
            f"images {part.start} to {part.stop} of a batch are no whole pairs; let "
            "batch_images, shared by the processes, and images_at_once be even"
        )
    return slice(*(None if end is None else end // 2 for end in ends))


def _batch(
    every: int, buckets: Sequence[Tensor] | None, count: int, step: int, seed: int
) -> Tensor:
    """``count`` rows of ``every`` one, or of the bucket whose turn it is."""
    if buckets is None:
        return batch_rows(every, count, step, seed)
    bucket, turn = bucket_turn(tuple(len(rows) for rows in buckets), step)
    rows = buckets[bucket]
    return rows[batch_rows(len(rows), count, turn, seed)]
