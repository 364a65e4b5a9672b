"""``sft:`` of a profile, and the blocks that every training shares: times, LoRA, optimizer."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from atelier.config.fields import (
    Count,
    Fraction,
    NonNegative,
    Origin,
    Params,
    Positive,
    Real,
    Seed,
    Whole,
)


class Times(Params):
    """How training times in [0, 1] are drawn: a mixture of uniform and logit-normal."""

    uniform_share: Fraction
    """Share of the times that is drawn uniformly; the rest is sigmoid(N(mean, std²)). [share]
    """
    logit_mean: Real
    """Mean of the logit-normal times; above 0: noisier. [number]"""
    logit_std: Positive
    """Standard deviation of the logit-normal times. [number]"""
    shift: Positive
    """Shift s of the times, t' = s t / (1 + (s − 1) t); above 1: noisier, 1: none. [number]"""


class Grids(Params):
    """Pictures that a training paints of captions of the validation set, on its way."""

    every_steps: Count
    """Optimizer steps between two grids. [optimizer steps]"""
    prompts: Count
    """Captions of the validation part that are painted. [captions]"""
    steps: Count
    """Sampling steps. [sampling steps]"""
    guidance: Annotated[Real, Field(ge=1)]
    """Classifier-free guidance; 1: off. [number]"""
    distilled_guidance: Positive | None = None
    """As in `generate`. [number]"""


class Training(Params):
    """How one network is trained; the same block in ``base``, ``sft`` and ``cpo``."""

    steps: Count
    """Optimizer steps of the training. [optimizer steps]"""
    batch_images: Count
    """Images of one optimizer step, over all processes. [images]"""
    images_at_once: Count | None
    """Images that pass through the network together (micro-batch); fewer need less memory;
    null: all. [images]"""
    warmup_steps: Whole
    """Steps during which the learning rate rises from 0. [optimizer steps]"""
    schedule: Literal["constant", "cosine", "linear"]
    """Course of the learning rate after the warm-up; cosine and linear fall to 2% of the peak.
    """
    optimizer: Literal["adamw", "adamw-fused", "adamw-8bit", "adafactor", "muon"]
    """The optimizer; adamw-fused is adamw in one kernel; adamw-8bit needs CUDA and
    bitsandbytes; muon makes the steps of matrices orthogonal."""
    weight_decay: NonNegative
    """Decoupled weight decay. [number]"""
    clip_norm: Positive
    """Largest norm of the gradient; longer gradients are scaled to it. [number]"""
    ema_decay: Fraction | None
    """Decay of the exponential moving average whose weights are kept; null: the last weights
    are kept. [share]"""
    precision: Literal["fp32", "bf16", "fp16"]
    """Precision of the passes; fp32: that of model.dtype."""
    gradient_checkpointing: bool
    """Whether activations are computed again for the gradient: slower, with less memory."""
    compile: bool
    """Whether torch.compile compiles the repeated blocks of the network."""
    times: Times
    """How the times (noise levels) of training are drawn."""
    offset_noise: NonNegative
    """Strength of additional noise that shifts whole channels; 0: none. [number]"""
    seed: Seed
    """Seed of everything that the training draws. [seed]"""
    checkpoint_steps: Count
    """Optimizer steps between two checkpoints. [optimizer steps]"""
    checkpoints_kept: Count
    """Number of the latest checkpoints that are kept. [checkpoints]"""
    report_steps: Count
    """Optimizer steps between two reports of loss, speed and drift. [optimizer steps]"""
    grids: Grids | None
    """Pictures that are painted during the training, for MLflow; null: none."""
    explosion: Annotated[Real, Field(gt=1)] | None
    """The training stops at a loss this many times its running mean; null: never. [ratio]"""
    drift_stop: bool
    """Whether a training that drifts instead of learning is stopped; false: it is only
    reported."""


class LoRA(Params):
    """Shape of a low-rank adapter, in peft's terms."""

    rank: Count
    """Rank of the adapter. [number]"""
    alpha: Positive
    """Numerator of the adapter's scale, alpha / rank. [number]"""
    rslora: bool
    """Whether the scale is alpha / √rank instead."""
    dora: bool
    """Whether direction and length of the weights learn separately (DoRA)."""
    dropout: Annotated[Real, Field(ge=0, lt=1)]
    """Share of the adapters' inputs that is dropped while training. [share]"""
    targets: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"]
    """Names of the layers that get an adapter, or all-linear."""


def _lora_or_full(value: object) -> object:
    """Tell the two apart by hand: a union would name every mistake of a LoRA twice."""
    if isinstance(value, str) and value != "full":
        raise ValueError(f"should be 'full' or the shape of a LoRA, got {value!r}")
    return value if value == "full" else LoRA.model_validate(value)


# What of the network learns: a LoRA on it, or all of its weights.
Learns = Annotated[LoRA | Literal["full"], BeforeValidator(_lora_or_full)]


class MinSNR(Params):
    """``weighting: {min_snr_gamma: 5}``: see objectives.min_snr."""

    min_snr_gamma: Positive
    """Largest weight γ of an error in the clean latents. [number]"""


Weighting = Literal["constant", "snr"] | MinSNR  # omega(lambda_t)


class SFTParams(Params):
    """``sft:`` the base learns what the attributes mean; the result is θ1."""

    lora: Learns
    """What learns: a LoRA of this shape, or all weights (full)."""
    init: Origin = "base"
    """Where θ1 begins: as the base, or as a LoRA in loras/."""
    learning_rate: Positive
    """Peak learning rate. [number]"""
    prompt_variants: Count
    """Prompts that are written for each image, of which each step draws one. [prompts]"""
    attribute_dropout: Fraction
    """Share of an image's attributes that a prompt leaves out. [share]"""
    caption_dropout: Fraction
    """Share of prompts that are replaced by the empty prompt; guidance needs some. [share]"""
    weighting: Weighting
    """Weight of the denoising loss over the times."""
    training: Training
    """How θ1 is trained."""

    @field_validator("init")
    @classmethod
    def _is_no_copy_of_itself(cls, init: str) -> str:
        if init == "sft":
            raise ValueError("should be 'base' or a LoRA in loras/; 'sft' is what sft makes")
        return init
