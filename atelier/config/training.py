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

    uniform_share: Fraction  # this share is uniform, the rest sigmoid(N(mean, std^2))
    logit_mean: Real
    logit_std: Positive
    shift: Positive  # then t becomes shift t / (1 + (shift - 1) t); above 1: noisier; 1: as is


class Grids(Params):
    """Pictures that a training paints of captions of the validation set, on its way."""

    every_steps: Count
    prompts: Count  # distinct captions of the validation set, evenly chosen
    steps: Count  # of sampling
    guidance: Annotated[Real, Field(ge=1)]
    distilled_guidance: Positive | None = None  # as evaluate's


class Training(Params):
    """How one network is trained; the same block in ``base``, ``sft`` and ``cpo``."""

    steps: Count  # optimizer steps
    batch_images: Count  # images in one optimizer step, over all processes
    images_at_once: Count | None  # of them through a network at once; fewer need less memory
    warmup_steps: Whole
    schedule: Literal["constant", "cosine", "linear"]  # after the warm-up; down to 2%
    optimizer: Literal["adamw", "adamw-8bit", "adafactor"]  # 8-bit: CUDA and bitsandbytes
    weight_decay: NonNegative
    clip_norm: Positive  # largest gradient norm that is let through
    ema_decay: Fraction | None  # of the exponential moving average that is kept; null: none
    precision: Literal["fp32", "bf16", "fp16"]  # of the passes; fp32: as model.dtype says
    gradient_checkpointing: bool  # passes are made again for the gradient: slower, smaller
    compile: bool  # the network's repeated blocks, by torch.compile
    times: Times
    offset_noise: NonNegative  # additional noise, one number per channel; 0: none
    seed: Seed
    checkpoint_steps: Count  # a checkpoint is written every so many steps
    checkpoints_kept: Count  # of which the last so many stay
    report_steps: Count  # values are reported every so many steps
    grids: Grids | None  # pictures painted on the way, for MLflow; null: none
    explosion: Annotated[Real, Field(gt=1)] | None  # stop at a loss so many times its mean
    drift_stop: bool  # stop a run that drifts instead of learning; false: warn


class LoRA(Params):
    """Shape of a low-rank adapter, in peft's terms."""

    rank: Count
    alpha: Positive
    rslora: bool  # scale by alpha / sqrt(rank) instead of alpha / rank
    dora: bool  # learn directions and lengths of weights apart
    dropout: Annotated[Real, Field(ge=0, lt=1)]  # of what the adapters read, while training
    targets: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"]


def _lora_or_full(value: object) -> object:
    """Tell the two apart by hand: a union would name every mistake of a LoRA twice."""
    if isinstance(value, str) and value != "full":
        raise ValueError(f"should be 'full' or the shape of a LoRA, got {value!r}")
    return value if value == "full" else LoRA.model_validate(value)


# What of the network learns: a LoRA on it, or all of its weights.
Learns = Annotated[LoRA | Literal["full"], BeforeValidator(_lora_or_full)]


class MinSNR(Params):
    """``weighting: {min_snr_gamma: 5}``: see objectives.min_snr."""

    min_snr_gamma: Positive  # largest weight of an error in the clean latents


Weighting = Literal["constant", "snr"] | MinSNR  # omega(lambda_t)


class SFTParams(Params):
    """``sft:`` the base learns what the attributes mean; the result is θ1."""

    lora: Learns
    init: Origin = "base"  # where θ1 begins: as the base, or as a LoRA in loras/
    learning_rate: Positive
    prompt_variants: Count  # prompts drawn for an image, of which each step picks one
    attribute_dropout: Fraction  # share of active attributes left out of a variant
    caption_dropout: Fraction  # share of prompts replaced by the empty one
    weighting: Weighting  # of the denoising loss over times
    training: Training

    @field_validator("init")
    @classmethod
    def _is_no_copy_of_itself(cls, init: str) -> str:
        if init == "sft":
            raise ValueError("should be 'base' or a LoRA in loras/; 'sft' is what sft makes")
        return init
