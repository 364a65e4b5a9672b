"""``generate:``, ``evaluate:`` and ``report:`` of a profile: sampling, metrics, page."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from atelier.config.fields import Count, Params, Positive, Real, Seed

MetricName = Literal[
    "fid",
    "kid",
    "vendi",
    "memorisation",
    "clipscore",
    "pickscore",
    "hpsv2.0",
    "hpsv2.1",
    "imagereward",
    "aesthetic",
    "hpsv3",
    "unifiedreward",
    "artimuse",
]


class ScoringParams(Params):
    """``evaluate.scoring:`` how the networks of metrics that score a picture are run."""

    batch_images: Count
    device: Literal["auto", "cpu", "cuda"]  # auto: cuda where there is one
    dtype: Literal["float32", "bfloat16", "float16"]  # part of a score's identity


class GenerateParams(Params):
    """``generate:`` how every candidate paints the captions."""

    part: Literal["test", "validation"]  # whose captions; choose settings on validation
    prompts: Count  # captions painted, at most; each has its own seed
    steps: Count  # sampling steps
    guidance: Annotated[Real, Field(ge=1)]  # classifier-free guidance; 1 is off
    # Input of a base that was distilled with guidance, as FLUX.1-dev (3.5); null: it has none.
    distilled_guidance: Positive | None
    batch_images: Count
    seed: Seed  # of the noise; also of KID's subsets


class EvaluateParams(Params):
    """``evaluate:`` what is measured of the pictures."""

    features: Literal["inception", "starter"]  # network whose features FID compares
    second_judge: Literal["starter"] | None  # independent of the annotator; for its drawings
    # Beside the negatives and positives, which are always counted. One whose weights are absent
    # is reported as unavailable; `atelier weights` lists them.
    metrics: list[MetricName]
    scoring: ScoringParams

    @field_validator("metrics")
    @classmethod
    def _measured_once(cls, names: list[MetricName]) -> list[MetricName]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"should name each metric once, names {twice} more often")
        if ("fid" in names) != ("kid" in names):
            raise ValueError("fid and kid are measured together; name both, or neither")
        return names


# What a θ may not lose against the base to be champion: a distance, or a judge of pictures.
ChampionGuard = Literal[
    "fid",
    "kid",
    "second_judge",
    "clipscore",
    "pickscore",
    "hpsv2.0",
    "hpsv2.1",
    "imagereward",
    "aesthetic",
    "hpsv3",
    "unifiedreward",
    "artimuse",
]


class ReportParams(Params):
    """``report:`` how the candidates are shown, and which θ is the registry's champion."""

    grid_prompts: Count  # columns of the sample grids
    # The θ with the lowest #A_neg among those that are no worse than the base in this.
    champion: ChampionGuard = "fid"
