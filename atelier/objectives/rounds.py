"""Rounds: pictures that a policy paints for its own training, a group for each caption."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from atelier.models import adapters
from atelier.models.sampling import starting_noise
from atelier.objectives.objective import Setup
from atelier.training.loop import generator


class Size(Protocol):
    """How large a round is: settings that the online objectives have."""

    @property
    def captions(self) -> int:
        """Distinct captions that are painted."""

    @property
    def group(self) -> int:
        """Pictures of each caption."""

    @property
    def sampling_steps(self) -> int:
        """Sampling steps of each picture, without guidance."""


def painted(
    setup: Setup,
    weights: Mapping[str, Tensor],
    number: int,
    size: Size,
    look: Callable[[Tensor, Tensor], None],
) -> tuple[Tensor, Tensor]:
    """Paint a round, at the size of the corpus' first image.

    What is painted depends on the seed, the number of the round and the weights.

    Args:
        setup: Of the training.
        weights: Of the policy that paints; they stand in for those of now.
        number: Of the round, from 0.
        size: How many pictures.
        look: Receives each part's pixels in [-1, 1], ``[B, 3, H, W]``, and the rows of their
            captions among the corpus' prompts, ``[B]``.

    Returns:
        Latents ``[N, C, H, W]`` and the rows of their captions, ``[N]``; pictures of one
        caption follow each other.
    """
    painter, corpus = setup.painter, setup.corpus
    source = generator(setup.params.seed, number, "round")
    distinct = torch.unique(corpus.rows["caption"])
    chosen = distinct[torch.randperm(len(distinct), generator=source)[: size.captions]]
    prompts = chosen.repeat_interleave(size.group)
    seeds = torch.randint(2**31, (len(prompts),), generator=source).tolist()
    shape = corpus.latents[torch.tensor([0])].shape[1:]
    device = next(painter.network.parameters()).device
    reads_guidance = getattr(painter.network.config, "guidance_embeds", False)
    latents = []
    policy = adapters.weights(painter.network, setup.policy)
    at_once = setup.params.images_at_once or setup.params.batch_images
    with (
        torch.no_grad(),
        adapters.resting(painter.network),
        adapters.standing_in(policy, weights),
    ):
        for first in range(0, len(prompts), at_once):
            some = slice(first, first + at_once)
            condition, empty = (
                {name: column[which].to(device) for name, column in corpus.prompts.items()}
                for which in (prompts[some], torch.tensor([corpus.empty]))
            )
            made = painter.sample(
                starting_noise((shape[0], shape[1], shape[2]), seeds[some]).to(device),
                condition,
                empty,
                steps=size.sampling_steps,
                guidance=1.0,
                distilled_guidance=1.0 if reads_guidance else None,
            )
            look(painter.decode_latents(made), prompts[some])
            latents.append(made.cpu())
    return torch.cat(latents), prompts
