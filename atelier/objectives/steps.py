"""What one step of each objective computes: the passes through the network, then the loss.

The frozen models go first, under ``no_grad``; the policy goes last and stays in force until
its backward pass (a switch between the two would silently give zero gradients).

Everything random is drawn for the whole batch of a step; only then are the rows taken that are
asked for, so that processes and passes which share a batch see what one would have seen.

Shapes: ``N`` images in the corpus, ``B`` in a batch, ``C H W`` latents, ``V`` prompts an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atelier.config.objectives import CPOS, DDSPO, NPO, SDPO, SPO, MaPO, Pairwise, TeacherTaught
from atelier.config.training import MinSNR, Training, Weighting
from atelier.errors import ParamsError
from atelier.models.adapters import use, weights
from atelier.models.denoiser import FRAME, Condition, Denoiser, join
from atelier.models.processes import ancestral
from atelier.objectives import losses as objectives
from atelier.training import drift
from atelier.training.loop import WHOLE, Step, batch_rows, bucket_turn, draw_times, generator


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
            ``[N, 4]``, told to families that ask for them; None: nobody is told.
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
        found = {name: rows[prompts].to(device) for name, rows in self.prompts.items()}
        if self.frames is not None:
            found[FRAME] = self.frames[images].to(device)
        return found

    def batch(self, images: int, step: int, seed: int) -> Tensor:
        """Return which images a step sees, ``[images]``, all of one size."""
        return _batch(len(self.latents), self.buckets, images, step, seed)


def denoising(
    painter: Denoiser,
    corpus: Corpus,
    params: Training,
    *,
    role: str,
    caption_dropout: float,
    weighting: Weighting,
) -> Step:
    """Ordinary denoising: how the base is trained, and SFT.

    ``E w(t) || target(x_0, eps, t) - f(x_t, t, c) ||^2`` with ``c`` one of the image's prompts
    of ``role``, or the empty one for a share ``caption_dropout``, and ``w`` by ``weighting``.
    """

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        del measure
        clean, rows, noise, time, source = _draw(painter, corpus, params, step, part)
        variants = corpus.rows[role][rows]
        images = params.batch_images
        choice = torch.randint(variants.shape[1], (images, 1), generator=source)[part]
        prompt = variants.gather(1, choice)[:, 0]
        dropped = (torch.rand(images, generator=source) < caption_dropout)[part]
        prompt = torch.where(dropped, torch.full_like(prompt, corpus.empty), prompt)
        noisy = painter.process.add_noise(clean, noise, time)
        predicted = painter.predict(noisy, time, corpus.condition(prompt, rows, clean.device))
        target = painter.process.target(clean, noise, time)
        errors = objectives.denoising_error(predicted, target)
        return (_weights(painter, time, weighting) * errors).mean(), {}

    return step_loss


def complex_preference(
    painter: Denoiser,
    corpus: Corpus,
    objective: TeacherTaught,
    params: Training,
    *,
    teacher: str,
    policy: str,
    caption_dropout: float,
) -> Step:
    """CPO, CPO-S, DDSPO: the policy learns, from captions alone, what a teacher tells apart.

    An image may have several contrasts, of which each step draws one; all that are drawn from
    have a loser, unless none of the image's has.

    Args:
        painter: One base with both adapters.
        corpus: With the roles ``caption``, one prompt an image, and ``winner`` and ``loser``,
            a prompt a contrast; with ``omegas`` where the objective's differ by root.
        objective: Which loss, and its strengths.
        params: Batch, times, seed.
        teacher: Name of θ1's adapter; frozen.
        policy: Name of θ's adapter; trained, and in force when the step returns.
        caption_dropout: Share of images whose caption the policy and its reference read as
            empty; the targets keep it. Without it θ learns nothing of the empty prompt, which
            guidance compares with.
    """
    has_loser = _with_loser(corpus, objective)
    several = has_loser.shape[1] > 1
    state = {"sft": teacher, "base": None, "self": policy}[_teacher(objective)]

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        clean, rows, noise, time, source = _draw(painter, corpus, params, step, part)
        contrast = torch.zeros(len(rows), dtype=torch.long)
        if several:
            odds = has_loser[corpus.batch(params.batch_images, step, params.seed)].double()
            odds[odds.sum(1) == 0] = 1
            contrast = torch.multinomial(odds, 1, generator=source)[part, 0]
        noisy = painter.process.add_noise(clean, noise, time)
        prompts = {role: corpus.rows[role][rows, contrast] for role in ("winner", "loser")}
        dropped = torch.rand(params.batch_images, generator=source)[part] < caption_dropout
        captions = _dropped(corpus, corpus.rows["caption"][rows, 0], dropped)
        conditions = {
            role: corpus.condition(prompt, rows, clean.device)
            for role, prompt in {**prompts, "caption": captions}.items()
        }
        both = has_loser[rows, contrast].to(clean.device)
        scale = _weights(painter, time, objective.weighting)
        win, lose = _targets(painter, noisy, time, conditions, state)
        reference = None
        if measure or _needs_reference(objective):
            with torch.no_grad(), use(painter.network, None):
                reference = painter.predict(noisy, time, conditions["caption"])
        predicted = painter.predict(noisy, time, conditions["caption"])
        at = predicted.detach() if reference is None else reference
        omega = _omega(objective, corpus, rows, contrast, like=predicted)
        losses = _loss(objective, predicted, at, win, lose, scale, both, omega)
        if not measure or reference is None:
            return losses.mean(), {}
        aim = _aim(objective, reference, win, lose, both, omega)
        with torch.no_grad():
            values = drift.values(predicted.detach(), reference, win, lose, aim)
            if not isinstance(objective, CPOS):
                values["gradient_factor"] = _gradient_factor(losses)
        values["winner_only"] = 1 - both.float().mean().item()
        return losses.mean(), values

    return step_loss


@dataclass(frozen=True)
class Pairs:
    """Pairs of the corpus' images: what DPO and its kin learn from.

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


def pairwise_preference(
    painter: Denoiser,
    corpus: Corpus,
    pairs: Pairs,
    objective: Pairwise,
    params: Training,
    *,
    policy: str,
    caption_dropout: float,
) -> Step:
    """Diffusion-DPO, NPO, MaPO and SDPO: the policy learns from pairs of pictures.

    Both pictures of a pair share noise, time and caption. A step sees ``batch_images`` images,
    so half as many pairs: what it costs is what a step of the other objectives costs.

    Args:
        painter: One base with the policy's adapter.
        corpus: Latents and prompts that the pairs point into.
        pairs: Who wins against whom.
        objective: Which loss, and its strengths.
        params: Batch, times, seed.
        policy: Name of θ's adapter; trained, and in force when the step returns.
        caption_dropout: Share of pairs whose caption is read as empty.
    """

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        count = params.batch_images // 2
        own = _of_pairs(part)
        rows = pairs.batch(count, step, params.seed)[own]
        source = generator(params.seed, step, "step")
        images = torch.cat([pairs.win[rows], pairs.lose[rows]])
        clean = corpus.latents[images]
        noise, time = _noise(clean, count, params, source, own)
        dropped = torch.rand(count, generator=source)[own] < caption_dropout
        device = next(painter.network.parameters()).device
        clean, noise, time = (
            tensor.to(device) for tensor in (clean, noise.repeat(2, 1, 1, 1), time.repeat(2))
        )
        noisy = painter.process.add_noise(clean, noise, time)
        target = painter.process.target(clean, noise, time)
        captions = _dropped(corpus, pairs.prompts[rows], dropped).repeat(2)
        condition = corpus.condition(captions, images, device)
        reference = None
        if measure or not isinstance(objective, MaPO):
            with torch.no_grad(), use(painter.network, None):
                reference = painter.predict(noisy, time, condition)
        predicted = painter.predict(noisy, time, condition)
        errors = objectives.denoising_error(predicted, target).chunk(2)
        at = predicted.detach() if reference is None else reference
        base = objectives.denoising_error(at, target).chunk(2)
        counts = pairs.weights[rows].to(predicted.device)
        losses = _pair_loss(objective, errors, base)
        loss = (counts * losses).mean()
        share = 1.0
        if isinstance(objective, SDPO):
            trained = list(weights(painter.network, policy).values())
            loss, share = _safeguarded(loss, losses, errors, counts, objective, trained)
        if not measure:
            return loss, {}
        with torch.no_grad():
            values = drift.pair_values(errors, base, towards_loser=isinstance(objective, NPO))
            values["drift"] = objectives.denoising_error(predicted, at).sqrt().mean().item()
            if not isinstance(objective, MaPO):
                values["gradient_factor"] = _gradient_factor(losses)
        if isinstance(objective, SDPO):
            values["safe_share"] = share
        return loss, values

    return step_loss


# Pixels in [-1, 1], [B, 3, H, W] → what is wrong with each picture, [B]; fewer is better.
Judge = Callable[[Tensor], Tensor]


def stepwise_preference(
    painter: Denoiser,
    corpus: Corpus,
    objective: SPO,
    params: Training,
    judge: Judge,
    *,
    policy: str,
    caption_dropout: float,
) -> Step:
    """SPO by an annotator: of two outcomes of one sampling step, the better judged one wins.

    Ours, where no step-aware scorer exists: from a noised training image the policy takes one
    stochastic step of a sampler twice, each outcome is judged by the picture that the policy
    predicts from there, and the policy learns to take the better one more often than its
    reference, inside of a trust region. SPO itself (arXiv:2406.04314) judges noisy latents by
    a model of its own, on the way of a whole sampling, with guidance inside.

    A step looks at half of ``batch_images`` images, twice each. The codec must be in memory.

    Args:
        painter: One base with the policy's adapter.
        corpus: With the role ``caption``.
        objective: Strength, trust region, and which steps are judged.
        params: Batch, seed.
        judge: Who says what is wrong with a picture.
        policy: Name of θ's adapter; trained, and in force when the step returns.
        caption_dropout: Share of images whose caption is read as empty.
    """
    del policy  # in force already; no other adapter is needed

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        count, own = params.batch_images // 2, _of_pairs(part)
        rows = corpus.batch(count, step, params.seed)[own]
        source = generator(params.seed, step, "step")
        clean = corpus.latents[rows]
        noise, _ = _noise(clean, count, params, source, own)
        highest = objective.steps - objective.untrained
        place = torch.randint(2, highest, (count,), generator=source)[own]
        shape = (2, count, *clean.shape[1:])
        steps_noise = torch.randn(shape, generator=source, dtype=torch.float32)[:, own]
        dropped = torch.rand(count, generator=source)[own] < caption_dropout
        captions = _dropped(corpus, corpus.rows["caption"][rows, 0], dropped)
        device = next(painter.network.parameters()).device
        time = (place / objective.steps).to(clean.dtype).to(device)
        to = ((place - 1) / objective.steps).to(clean.dtype).to(device)
        condition = corpus.condition(captions, rows, device)
        noisy = painter.process.add_noise(clean.to(device), noise.to(device), time)
        with torch.no_grad(), use(painter.network, None):
            reference = painter.predict(noisy, time, condition)
        predicted = painter.predict(noisy, time, condition)
        means = [
            ancestral(painter.process, noisy, at, time, to, objective.churn)
            for at in (predicted, reference)
        ]
        (mean, deviation), (reference_mean, _) = means
        wide = deviation.reshape(-1, *[1] * (clean.dim() - 1))
        taken = mean.detach() + wide * steps_noise.to(clean.dtype).to(device)
        wrong = torch.stack([_judged(painter, one, to, condition, judge) for one in taken])
        first_wins = wrong[0] < wrong[1]
        ratios = [
            objectives.gaussian_log_ratio(one, mean, reference_mean, deviation) for one in taken
        ]
        win = torch.where(first_wins, ratios[0], ratios[1])
        lose = torch.where(first_wins, ratios[1], ratios[0])
        kept = ((wrong[0] - wrong[1]).abs() >= objective.gap).to(win.dtype)
        losses = objectives.spo(win, lose, beta=objective.beta, clip=objective.clip)
        loss = (kept * losses).mean()
        if not measure:
            return loss, {}
        pairs = kept.sum().clamp(min=1)
        apart = objectives.denoising_error(predicted.detach(), reference).sqrt()
        return loss, {
            "accuracy": float((kept * (win > lose)).sum() / pairs),
            "drift": apart.mean().item(),
            "pairs": kept.mean().item(),
            "negatives": wrong.float().mean().item(),
            "gradient_factor": float((kept * -torch.expm1(-losses.detach())).sum() / pairs),
        }

    return step_loss


def _judged(
    painter: Denoiser, noisy: Tensor, time: Tensor, condition: Condition, judge: Judge
) -> Tensor:
    """What is wrong with the picture that the policy sees in ``noisy``, ``[B]``."""
    with torch.no_grad():
        predicted = painter.predict(noisy, time, condition)
        clean = painter.process.denoised(noisy, predicted, time)
        return judge(painter.decode_latents(clean)).to(noisy.device)


def _of_pairs(part: slice) -> slice:
    """Which pairs the images of ``part`` are."""
    ends = [part.start, part.stop]
    if any(end is not None and end % 2 for end in ends):
        raise ParamsError(
            f"images {part.start} to {part.stop} of a batch are no whole pairs; let "
            "batch_images, shared by the processes, and images_at_once be even"
        )
    return slice(*(None if end is None else end // 2 for end in ends))


def _pair_loss(
    objective: Pairwise, policy: Sequence[Tensor], reference: Sequence[Tensor]
) -> Tensor:
    """Loss of each pair, ``[B]``; SDPO's value is DPO's, its gradient is not."""
    errors = (*policy, *reference)
    if isinstance(objective, MaPO):
        return objectives.mapo(*policy, beta=objective.beta, scale=objective.scale)
    if isinstance(objective, NPO):
        return objectives.npo(*errors, beta=objective.beta)
    return objectives.dpo(*errors, beta=objective.beta)


def _safeguarded(
    loss: Tensor,
    losses: Tensor,
    errors: Sequence[Tensor],
    counts: Tensor,
    objective: SDPO,
    trained: Sequence[Tensor],
) -> tuple[Tensor, float]:
    """DPO's loss with the safe share of the losers' gradient, and that share.

    Both gradients are those of the pairs at hand: where a batch is taken in parts, or by
    several processes, each part is safe for its own winners.
    """
    pulls = counts * objectives.pull(losses, objective.beta)
    win, lose = ((pulls * error).mean() for error in errors)
    down = torch.autograd.grad(win, trained, retain_graph=True)
    up = torch.autograd.grad(lose, trained, retain_graph=True)
    share = objectives.safe_share(down, up, slack=objective.slack)
    gradient = win - share * lose
    return loss.detach() + gradient - gradient.detach(), share.item()


def _gradient_factor(losses: Tensor) -> float:
    """``sigmoid(-logit)`` of a logistic loss: near 0 nothing is learned any more."""
    return float(-torch.expm1(-losses.detach()).mean())


def _dropped(corpus: Corpus, prompts: Tensor, dropped: Tensor) -> Tensor:
    """Prompt rows ``[B]``, the empty prompt's where ``dropped``."""
    return torch.where(dropped, torch.full_like(prompts, corpus.empty), prompts)


def _with_loser(corpus: Corpus, objective: TeacherTaught) -> Tensor:
    """Which contrasts name both poles, bool ``[N, V]``; the others train the winner alone."""
    winner, loser, caption = (corpus.rows[role] for role in ("winner", "loser", "caption"))
    has_loser = (winner != loser) & (loser != caption)
    if objective.winner == "labelled":
        has_loser &= winner != caption
    return has_loser


def _teacher(objective: TeacherTaught) -> str:
    return "base" if isinstance(objective, DDSPO) else objective.teacher


def _weights(painter: Denoiser, time: Tensor, weighting: Weighting) -> Tensor:
    """omega(lambda_t) of each image, ``[B]``."""
    snr = painter.process.snr(time)
    if isinstance(weighting, MinSNR):
        scale = painter.process.clean_scale(time)
        return objectives.min_snr(snr, scale, weighting.min_snr_gamma)
    return objectives.weight(snr, weighting)


def _omega(
    objective: TeacherTaught, corpus: Corpus, rows: Tensor, contrast: Tensor, *, like: Tensor
) -> float | Tensor:
    """The strength of each image's contrast: one number, or ``[B, 1, ...]`` by root."""
    if not isinstance(objective, CPOS):
        return 0.0
    if isinstance(objective.omega, dict):
        assert corpus.omegas is not None
        omegas = corpus.omegas[rows, contrast].to(like)
        return omegas.reshape(-1, *[1] * (like.dim() - 1))
    return objective.omega


def _batch(
    every: int, buckets: Sequence[Tensor] | None, count: int, step: int, seed: int
) -> Tensor:
    """``count`` rows of ``every`` one, or of the bucket whose turn it is."""
    if buckets is None:
        return batch_rows(every, count, step, seed)
    bucket, turn = bucket_turn(tuple(len(rows) for rows in buckets), step)
    rows = buckets[bucket]
    return rows[batch_rows(len(rows), count, turn, seed)]


def _draw(
    painter: Denoiser, corpus: Corpus, params: Training, step: int, part: slice = WHOLE
) -> tuple[Tensor, Tensor, Tensor, Tensor, torch.Generator]:
    """Images, their rows, noise and times of part of a step's batch, and its generator.

    The generator has drawn for the whole batch; so must whoever draws more from it.
    """
    batch = corpus.batch(params.batch_images, step, params.seed)
    rows = batch[part]
    source = generator(params.seed, step, "step")
    clean = corpus.latents[rows]
    noise, time = _noise(clean, len(batch), params, source, part)
    device = next(painter.network.parameters()).device
    return clean.to(device), rows, noise.to(device), time.to(device), source


def _noise(
    clean: Tensor, every: int, params: Training, source: torch.Generator, part: slice
) -> tuple[Tensor, Tensor]:
    """Noise and times of part of a batch of ``every`` latents like ``clean``.

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


def _targets(
    painter: Denoiser,
    noisy: Tensor,
    time: Tensor,
    conditions: Mapping[str, Condition],
    teacher: str | None,
) -> tuple[Tensor, Tensor]:
    """The teacher's two predictions at one noisy latent, both in one batch."""
    with torch.no_grad(), use(painter.network, teacher):
        both = painter.predict(
            torch.cat([noisy, noisy]),
            torch.cat([time, time]),
            join([conditions["winner"], conditions["loser"]]),
        )
    win, lose = both.chunk(2)
    return win, lose


def _needs_reference(objective: TeacherTaught) -> bool:
    return not isinstance(objective, CPOS) or objective.loser_target == "mirror-reference"


def _loss(
    objective: TeacherTaught,
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    weights: Tensor,
    has_loser: Tensor,
    omega: float | Tensor,
) -> Tensor:
    """Loss of each image, ``[B]``."""
    if isinstance(objective, CPOS):
        return objectives.cpo_s(
            policy, reference, win, lose,
            kind=objective.loser_target, omega=omega, weights=weights, has_loser=has_loser,
        )  # fmt: skip
    logistic = objectives.ddspo if isinstance(objective, DDSPO) else objectives.cpo
    return logistic(
        policy, reference, win, lose,
        beta=objective.beta, weights=weights, has_loser=has_loser,
    )  # fmt: skip


def _aim(
    objective: TeacherTaught,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    has_loser: Tensor,
    omega: float | Tensor,
) -> Tensor:
    """Where the objective leads each image: the winner, or CPO-S's fixed point."""
    if not isinstance(objective, CPOS):
        return win
    point = objectives.fixed_point(
        reference, win, lose, kind=objective.loser_target, omega=omega
    )
    return torch.where(has_loser.reshape(-1, *[1] * (win.dim() - 1)), point, win)
