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
    """Pictures that a scoring network reads at once. [images]"""
    device: Literal["auto", "cpu", "cuda"]
    """Device of scoring networks; auto: CUDA where there is a GPU."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Precision of scoring networks; scores of another precision are other scores."""


class GenerateParams(Params):
    """``generate:`` how every candidate paints the captions."""

    part: Literal["test", "validation"]
    """Part of the data set whose captions are painted; choose settings on validation."""
    prompts: Count
    """Largest number of captions that are painted; each has its own seed. [captions]"""
    steps: Count
    """Sampling steps. [sampling steps]"""
    guidance: Annotated[Real, Field(ge=1)]
    """Classifier-free guidance; 1: off. [number]"""
    distilled_guidance: Positive | None
    """Guidance as an input of a network that was distilled with it, as FLUX.1-dev (3.5); null:
    the network has no such input. [number]"""
    batch_images: Count
    """Pictures that are painted at once. [images]"""
    seed: Seed
    """Seed of the noise, and of KID's subsets. [seed]"""


class EvaluateParams(Params):
    """``evaluate:`` what is measured of the pictures."""

    features: Literal["inception", "starter"]
    """Network whose features FID and KID compare."""
    second_judge: Literal["starter"] | None
    """A judge that is independent of the annotator; `starter` knows the drawings only; null:
    none."""
    metrics: list[MetricName]
    """Metrics besides the counts of negative and positive attributes, which are always
    measured. A metric without its weights is reported as unavailable; `atelier weights` lists
    them."""
    scoring: ScoringParams
    """How networks that score single pictures are run."""

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

    grid_prompts: Count
    """Columns of the sample grids. [captions]"""
    champion: ChampionGuard = "fid"
    """The champion is the θ with the fewest negative attributes among those that are not worse
    than the base in this metric."""
