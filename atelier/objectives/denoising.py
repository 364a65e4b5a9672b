"""Ordinary denoising: how the base is trained, and SFT."""

from collections.abc import Mapping

import torch
from torch import Tensor

from atelier.config.training import Training, Weighting
from atelier.models.denoiser import Denoiser
from atelier.training.corpus import Corpus, draw
from atelier.training.denoising_error import denoising_error, weights_at
from atelier.training.loop import WHOLE, Step


def step(
    painter: Denoiser,
    corpus: Corpus,
    params: Training,
    *,
    role: str,
    caption_dropout: float,
    weighting: Weighting,
) -> Step:
    """Return the step of ordinary denoising.

    ``E w(t) || target(x_0, eps, t) - f(x_t, t, c) ||^2`` with ``c`` one of the image's prompts
    of ``role``, or the empty one for a share ``caption_dropout``, and ``w`` by ``weighting``.
    """

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        del measure
        clean, rows, noise, time, source = draw(painter, corpus, params, step, part)
        variants = corpus.rows[role][rows]
        images = params.batch_images
        choice = torch.randint(variants.shape[1], (images, 1), generator=source)[part]
        prompt = variants.gather(1, choice)[:, 0]
        dropped = (torch.rand(images, generator=source) < caption_dropout)[part]
        prompt = corpus.emptied(prompt, dropped)
        noisy = painter.process.add_noise(clean, noise, time)
        predicted = painter.predict(noisy, time, corpus.condition(prompt, rows, clean.device))
        target = painter.process.target(clean, noise, time)
        errors = denoising_error(predicted, target)
        return (weights_at(painter.process, time, weighting) * errors).mean(), {}

    return step_loss
