"""What a person decides: one frozen model for each section of ``params/<profile>.yaml``.

There are no defaults in code: a value that is not in the file is a mistake that is
named, and so is a key that nobody reads. Units stand at the field.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from atelier import reading
from atelier.errors import ArtifactError, ParamsError


def _no_truth(value: object) -> object:
    """Refuse yes and no, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"should be a number, got {value!r}")
    return value


def _inside(path: str) -> str:
    """Refuse a path that leads out of the folder that it is looked for in."""
    parts = PurePosixPath(path).parts
    if not path or "\\" in path or "\0" in path or ".." in parts or parts[:1] == ("/",):
        raise ValueError(
            f"should be a path inside its folder, without a leading / and without .., "
            f"got {reading.short(path)}"
        )
    return path


Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, BeforeValidator(_no_truth)]
# Bounds stand before what turns a value away, so that forms know them.
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_truth)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_no_truth)]
Count = Annotated[Integer, Field(gt=0)]
Whole = Annotated[Integer, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_truth)]
Inside = Annotated[str, AfterValidator(_inside)]
Section = TypeVar("Section", bound="Params")
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
_SHOWN = 40  # mistakes that one message lists
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")


class Params(BaseModel):
    """Parent of the sections: unknown keys and endless numbers refused, values immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Buckets(Params):
    """Sizes of about the area of the square, for pictures that are no squares."""

    step_pixels: Count  # every side is a multiple of it; of 8 for sdxl, of 16 for the others
    longest_ratio: Annotated[Real, Field(ge=1)]  # of the longer side to the shorter one


class ModelParams(Params):
    """``model:`` which painter is taught."""

    family: Literal["flux", "sd3", "sdxl"]
    source: str  # a folder in diffusers' layout, or a hub id
    revision: str | None  # commit of the hub id; null for a folder
    dtype: Literal["float32", "bfloat16", "float16"]  # of the frozen base; adapters are float32
    quantise: Literal["int8", "nf4"] | None  # the base's linear layers; null: as dtype says
    pixels: Count  # side of the square pictures
    text_tokens: Count  # length to which T5 pads prompts; ignored by families without T5
    text_chunks: Count  # of 75 tokens that CLIP reads one by one; of sdxl, others have T5
    buckets: Buckets | None  # sizes that training cuts pictures to; null: the middle square
    true_sizes: bool  # training tells a picture's own size and crop; families without ignore it


# What a model that was written down before a setting existed was made with.
_BEFORE_IT_WAS_A_SETTING = {
    "quantise": None,
    "text_chunks": 1,
    "buckets": None,
    "true_sizes": False,
}


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
    offset_noise: NonNegative  # noise that is one number a channel, beside the other; 0: none
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


class PCACodec(Params):
    """A linear codec fitted to the corpus: PCA of square patches."""

    kind: Literal["pca"]
    patch_pixels: Annotated[Integer, Field(ge=2)]  # a power of two
    channels: Count


class FolderCodec(Params):
    """An autoencoder that exists: a folder in diffusers' layout."""

    kind: Literal["folder"]
    path: str


class FluxNetwork(Params):
    """Size of a small FLUX transformer."""

    kind: Literal["flux"]
    double_blocks: Whole
    single_blocks: Whole
    heads: Count
    head_width: Count  # split over the three rotary axes; divisible by 4
    text_width: Count  # of the T5 encoder
    pooled_width: Count  # of the CLIP encoder


class SDXLNetwork(Params):
    """Size of a small SDXL UNet and of its two CLIP encoders."""

    kind: Literal["sdxl"]
    predicts: Literal["epsilon", "v"]  # what the network answers; v from nothing, as a rule
    widths: Annotated[list[Count], Field(min_length=2)]  # channels a level, fine to coarse
    attention: list[bool]  # which levels read the text; the middle does
    layers: Count  # residual blocks a level
    head_width: Count  # of attention; divides every width
    groups: Count  # of group normalisation; divides every width
    text_widths: Annotated[list[Count], Field(min_length=2, max_length=2)]  # of both encoders
    pooled_width: Count  # of the second encoder's summary

    @model_validator(mode="after")
    def _levels_fit(self) -> "SDXLNetwork":
        if len(self.attention) != len(self.widths):
            raise ValueError(
                f"attention should have one entry for each of the {len(self.widths)} widths, "
                f"has {len(self.attention)}"
            )
        for width in self.widths:
            if width % self.groups or width % self.head_width:
                raise ValueError(
                    f"groups ({self.groups}) and head_width ({self.head_width}) should divide "
                    f"every one of widths, do not divide {width}"
                )
        return self


class SD3Network(Params):
    """Size of a small SD3 transformer and of its three text encoders."""

    kind: Literal["sd3"]
    blocks: Annotated[Integer, Field(ge=2)]
    heads: Count
    head_width: Count  # a multiple of 8
    text_width: Count  # of T5
    clip_widths: Annotated[list[Count], Field(min_length=2, max_length=2)]  # of both CLIPs
    pooled_width: Count  # of each CLIP's summary

    @model_validator(mode="after")
    def _clips_fit_beside_t5(self) -> "SD3Network":
        if sum(self.clip_widths) > self.text_width:
            raise ValueError(
                f"clip_widths should add up to text_width, {self.text_width}, at most, add up "
                f"to {sum(self.clip_widths)}"
            )
        return self


Network = Annotated[FluxNetwork | SD3Network | SDXLNetwork, Field(discriminator="kind")]


class BaseParams(Params):
    """``base:`` how ``python -m tasks base`` trains a small base from nothing."""

    corpus: (
        Literal["sketchbook"] | str
    )  # the drawn sketchbook, or a folder of captioned pictures
    images: Count  # drawings in the sketchbook; at most this many of a folder
    codec: Annotated[PCACodec | FolderCodec, Field(discriminator="kind")]
    network: Network
    caption_dropout: Fraction  # share of captions replaced by the empty one
    grid_guidance: Annotated[Real, Field(ge=1)]  # with which the sample grid is painted
    learning_rate: Positive
    training: Training

    @field_validator("training")
    @classmethod
    def _paints_at_its_end(cls, training: Training) -> Training:
        if training.grids is not None:
            raise ValueError("grids should be null here: a base paints one grid, at its end")
        return training


class VLMParams(Params):
    """``annotate.vlm:`` the agent: which model looks, where it is served, what it may cost."""

    base_url: str  # of an OpenAI-compatible server, with its version: http://localhost:8000/v1
    model: str  # as the server calls it
    key_variable: str | None  # environment variable that holds the key; null: none is needed
    answers: Literal[  # what the server can be held to, the strictest first
        "json_schema", "json_schema_loose", "json_object_schema", "json_object", "plain"
    ]
    activation: Literal["at_once", "in_rounds"]  # what matters: all groups, or branches first
    concurrency: Count  # requests on their way at once
    timeout_seconds: Positive  # of one request
    tries: Count  # of one question, before its picture is set aside
    longest_wait_seconds: Positive  # between two tries, whatever Retry-After asks for
    pixels: Count  # side of the middle square that is sent
    criteria_per_call: Count  # judged in one question, about
    votes: Count  # times each judgement is asked for; confidence is then the share of votes
    temperature: NonNegative | None  # null: the server's own
    max_tokens: Count  # of one answer
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"]  # as the server calls it
    write_captions: bool  # where the table has none, or there is no table
    image_tokens: Whole  # what the model counts for one picture; for estimates alone
    prompt_price: NonNegative  # of a million tokens sent, in your currency
    completion_price: NonNegative  # of a million tokens answered
    cost_cap: Positive | None  # of all answers by this model and these criteria; null: none

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):
            # Not shown: it may be the key itself.
            raise ValueError(
                "should be the name of an environment variable, in capitals, such as "
                "OPENAI_API_KEY; the key itself belongs into that variable, into no file"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _holds_no_key(cls, url: str) -> str:
        if not _URL.fullmatch(url):
            raise ValueError(
                "should be http(s)://host/path without a user, a password or a query; the key "
                "belongs into the environment variable that key_variable names"
            )
        return url

    @model_validator(mode="after")
    def _votes_differ(self) -> "VLMParams":
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"{self.votes} votes are one vote at temperature 0; raise it")
        return self


class Unanimous(Params):
    """What all who speak say counts; where two say opposite things, nothing does."""

    rule: Literal["unanimous"]


class Majority(Params):
    """What more than half of those who speak say counts."""

    rule: Literal["majority"]
    quorum: Count  # annotators who must speak, or nothing counts


class Weighted(Params):
    """The pole in which there is more confidence, summed over who speaks, counts."""

    rule: Literal["weighted"]


class Trust(Params):
    """What the first of ``order`` who speaks says counts."""

    rule: Literal["trust"]
    order: Annotated[list[str], Field(min_length=1)]  # annotators, `*` any letters; no others


Adjudication = Annotated[Unanimous | Majority | Weighted | Trust, Field(discriminator="rule")]


class AnnotateParams(Params):
    """``annotate:`` who judges, by which criteria."""

    criteria: Inside  # the tree, a file in params/criteria/
    annotator: Literal["measured", "recorded", "vlm"]  # recorded: nobody but who is below
    recorded: list[str] | None  # JSONL of judgements in labels/, one or several; heard as well
    adjudication: Adjudication  # which judgement counts where several annotators speak
    vlm: VLMParams | None  # the model that `vlm` asks; null if there is none
    captions: (
        str | None
    )  # CSV or JSONL inside data/ with columns file, caption; null: file names
    smallest_side_pixels: Count  # smaller pictures are set aside
    largest_pixels: Count  # pictures of more pixels are set aside unread

    @field_validator("recorded", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, recorded: Any) -> Any:
        return [recorded] if isinstance(recorded, str) else recorded

    @model_validator(mode="after")
    def _says_whose_judgements(self) -> "AnnotateParams":
        if self.annotator == "recorded" and not self.recorded:
            raise ValueError(
                "recorded should be a JSONL file of judgements, or several, when annotator is "
                "'recorded', is null; `python -m tasks labels read` makes one"
            )
        return self

    @model_validator(mode="after")
    def _says_which_model_looks(self) -> "AnnotateParams":
        if self.annotator == "vlm" and self.vlm is None:
            raise ValueError(
                "vlm should say where the model is served when annotator is 'vlm', is null; "
                "docs/annotators.md has sections to copy"
            )
        return self


class SplitParams(Params):
    """``split:`` who learns and who is examined."""

    train: Fraction
    validation: Fraction
    test: Fraction
    near_duplicate_bits: (
        Whole | None
    )  # pHash distance (of 256) up to which two are one; null: off
    train_share: Annotated[Real, Field(gt=0, le=1)]  # of the training part that is used
    salt: str  # another word gives another split

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitParams":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test should be 1, is {total:g}")
        return self


class MinSNR(Params):
    """``weighting: {min_snr_gamma: 5}``: see objectives.min_snr."""

    min_snr_gamma: Positive  # largest weight of an error in the clean latents


Weighting = Literal["constant", "snr"] | MinSNR  # omega(lambda_t)


class SFTParams(Params):
    """``sft:`` the base learns what the attributes mean; the result is θ1."""

    lora: Learns
    learning_rate: Positive
    prompt_variants: Count  # prompts drawn for an image, of which each step picks one
    attribute_dropout: Fraction  # share of active attributes left out of a variant
    caption_dropout: Fraction  # share of prompts replaced by the empty one
    weighting: Weighting  # of the denoising loss over times
    training: Training


Winner = Literal["labelled", "flipped"]
Teacher = Literal["sft", "base", "self"]  # who gives the targets: θ1, the base, the θ of now
Confidence = Literal["ignored", "weighs"]  # does an unsure judgement enter targets less often?
Omega = NonNegative | Annotated[dict[str, NonNegative], Field(min_length=1)]  # one, or by root


class CPO(Params):
    """L_CPO, not stabilised: the logistic loss in the Diffusion-DPO frame."""

    objective: Literal["cpo"]
    winner: Winner
    teacher: Teacher
    confidence: Confidence
    beta: Positive  # pull towards the reference; see objectives.cpo
    weighting: Weighting
    learning_rate: Positive


class CPOS(Params):
    """L_stab: the losing term has a fixed target, by one of three readings."""

    objective: Literal["cpo-s"]
    loser_target: Literal["mirror-winner", "mirror-policy", "mirror-reference"]
    winner: Winner
    teacher: Teacher
    confidence: Confidence
    omega: Omega  # how far past the winner; see objectives.loser_target
    weighting: Weighting
    learning_rate: Positive

    @model_validator(mode="after")
    def _has_a_fixed_point(self) -> "CPOS":
        if isinstance(self.omega, dict):
            if self.loser_target != "mirror-winner":
                raise ValueError(
                    "omega by root needs loser_target mirror-winner, whose fixed point is "
                    f"linear in omega, got {self.loser_target}"
                )
        elif self.loser_target == "mirror-policy" and self.omega >= 1:
            raise ValueError(
                f"omega should be below 1 for mirror-policy (its fixed point is at "
                f"omega / (1 - omega)), got {self.omega:g}"
            )
        return self


class DDSPO(Params):
    """DDSPO on our prompts: L_CPO with the base as teacher."""

    objective: Literal["ddspo"]
    winner: Winner
    beta: Positive
    weighting: Weighting
    learning_rate: Positive


class DPO(Params):
    """Diffusion-DPO on pairs of pictures."""

    objective: Literal["dpo"]
    beta: Positive  # on a mean error, with the factor 1/2; see objectives.with_half
    learning_rate: Positive


class NPO(Params):
    """Diffusion-NPO: DPO with the pair swapped; paints on the negative branch of others."""

    objective: Literal["npo"]
    beta: Positive
    learning_rate: Positive
    w: Fraction  # theta_neg = base + (1 - w) delta_pos + delta_npo
    beside: Annotated[list[str], Field(min_length=1)]  # base, theta1, or other objectives


class MaPO(Params):
    """MaPO: a margin without a reference, beside the winner's denoising loss."""

    objective: Literal["mapo"]
    beta: Positive  # of the margin's term against the winner's error
    scale: Positive  # of the errors inside x / expm1(x)
    learning_rate: Positive


class SDPO(Params):
    """Diffusion-SDPO: DPO whose losing gradient never raises the winner's error."""

    objective: Literal["sdpo"]
    beta: Positive
    slack: Fraction  # this share of the largest safe losing gradient is not used
    learning_rate: Positive


class SPO(Params):
    """SPO without a step-aware scorer: the measured annotator looks at x0-predictions."""

    objective: Literal["spo-measured"]
    beta: Positive  # of the clipped log ratio
    clip: Annotated[Real, Field(gt=0, lt=1)]  # half-width of the ratio's trust region
    steps: Annotated[Integer, Field(ge=3)]  # of the sampler whose single steps are judged
    untrained: Whole  # of them, the noisiest ones, that are not
    churn: Annotated[Real, Field(gt=0, le=1)]  # DDIM's eta: how much noise a step adds
    gap: Count  # negatives between two candidates that make a pair of them
    learning_rate: Positive

    @model_validator(mode="after")
    def _trains_some_steps(self) -> "SPO":
        if self.untrained > self.steps - 3:
            raise ValueError(
                f"untrained should leave steps to train, at most {self.steps - 3} of "
                f"{self.steps}, is {self.untrained}"
            )
        return self


TeacherTaught = CPO | CPOS | DDSPO
Pairwise = DPO | NPO | MaPO | SDPO
Objective = Annotated[TeacherTaught | Pairwise | SPO, Field(discriminator="objective")]


class AnnotationPairs(Params):
    """Pairs of pictures from the judgements: fewer negatives win."""

    source: Literal["annotations"]
    caption_similarity: Annotated[Real, Field(gt=0, le=1)]  # 1: equal captions only
    neighbours: Count  # partners that each picture meets
    ties: Literal["dropped", "halved"]  # halved: both orders, at half weight each


class TablePairs(Params):
    """Pairs of pictures that somebody brought; docs/pairs.md."""

    source: Literal["table"]
    table: Inside  # CSV beside the pictures, with the columns file_win, file_lose, caption


PairParams = Annotated[AnnotationPairs | TablePairs, Field(discriminator="source")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class CPOParams(Params):
    """``cpo:`` the base learns, from captions alone, what θ1 tells apart; a θ an objective."""

    objectives: Annotated[dict[Name, Objective], Field(min_length=1)]
    featured: Name  # the objective whose θ the report compares with the base
    caption_dropout: Fraction  # share of steps' captions that the policy reads as empty
    attribute_draws: Count  # prompts drawn for an image where confidence weighs
    pairs: PairParams | None  # what dpo, npo, mapo and sdpo learn from; null: nothing does
    lora: Learns
    training: Training

    @model_validator(mode="after")
    def _featured_is_trained(self) -> "CPOParams":
        if self.featured not in self.objectives:
            raise ValueError(
                f"featured should be one of {sorted(self.objectives)}, got {self.featured!r}"
            )
        if isinstance(self.objectives[self.featured], NPO):
            raise ValueError(
                f"featured should be a painter of its own, got {self.featured!r}, which only "
                "stands beside others"
            )
        return self

    @model_validator(mode="after")
    def _pairs_are_there(self) -> "CPOParams":
        pairwise = [name for name, one in self.objectives.items() if isinstance(one, Pairwise)]
        if pairwise and self.pairs is None:
            raise ValueError(
                f"pairs should say where {', '.join(pairwise)} get their pairs of pictures, "
                "is null; docs/pairs.md has both ways"
            )
        if pairwise and self.training.batch_images % 2:
            raise ValueError(
                f"training.batch_images should be even, for {', '.join(pairwise)} see pairs; "
                f"is {self.training.batch_images}"
            )
        return self

    @model_validator(mode="after")
    def _company_exists(self) -> "CPOParams":
        painters = {"base", "theta1"} | {
            name for name, one in self.objectives.items() if not isinstance(one, NPO)
        }
        for name, one in self.objectives.items():
            unknown = sorted(set(one.beside) - painters) if isinstance(one, NPO) else []
            if unknown:
                raise ValueError(
                    f"objectives.{name}.beside should name painters of {sorted(painters)}, "
                    f"has {', '.join(unknown)}"
                )
        return self


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
]


class ScoringParams(Params):
    """``evaluate.scoring:`` how the networks of metrics that score a picture are run."""

    batch_images: Count
    device: Literal["auto", "cpu", "cuda"]  # auto: cuda where there is one
    dtype: Literal["float32", "bfloat16", "float16"]  # part of a score's identity


class EvaluateParams(Params):
    """``evaluate:`` how the painters are compared."""

    part: Literal["test", "validation"]  # whose captions; choose settings on validation
    prompts: Count  # captions painted, at most; each has its own seed
    steps: Count  # sampling steps
    guidance: Annotated[Real, Field(ge=1)]  # classifier-free guidance; 1 is off
    batch_images: Count
    features: Literal["inception", "starter"]  # network whose features FID compares
    second_judge: Literal["starter"] | None  # independent of the annotator; for its drawings
    # Beside the negatives and positives, which are always counted. One whose weights are absent
    # is reported as unavailable; `python -m tasks weights` lists them.
    metrics: list[MetricName]
    scoring: ScoringParams
    bootstrap: Count  # resamples behind each interval
    grid_prompts: Count  # columns of the sample grids
    seed: Seed

    @field_validator("metrics")
    @classmethod
    def _measured_once(cls, names: list[MetricName]) -> list[MetricName]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"should name each metric once, names {twice} more often")
        if ("fid" in names) != ("kid" in names):
            raise ValueError("fid and kid are measured together; name both, or neither")
        return names


class SurveyParams(Params):
    """``survey:`` how people compare painters, pair by pair; no stage, see docs/survey.md."""

    painters: Annotated[list[str], Field(min_length=2)]  # as evaluate calls them, or models:/…
    groups: Annotated[list[Name], Field(min_length=1)]  # of people, reported apart: experts, …
    pairs: Count  # captions on which each two painters are compared
    raters: Count  # people of each group who see each pair
    pairs_each: Count  # pairs that one person sees, at most, along every dimension
    checks: Whole  # questions with a ruined picture that each person meets
    checks_passed: Fraction  # share of them to be answered rightly, or the person is left out
    repeats: Whole  # questions that each person is asked again, sides swapped
    address: str  # how people reach the server; https://… where they are not on its machine
    contact: str | None  # who runs the study, as its pages say; null: who sent the link
    seed: Seed

    @field_validator("painters", "groups")
    @classmethod
    def _differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("should hold each name once")
        return names

    @field_validator("address")
    @classmethod
    def _has_no_path(cls, address: str) -> str:
        if not _ORIGIN.fullmatch(address):
            raise ValueError("should be http(s)://host or http(s)://host:port, nothing more")
        return address


class Profile(Params):
    """One file of ``params/``: everything that a run can change."""

    model: ModelParams
    base: BaseParams | None  # null where the base is downloaded, not trained here
    annotate: AnnotateParams
    split: SplitParams
    sft: SFTParams
    cpo: CPOParams
    evaluate: EvaluateParams
    survey: SurveyParams

    @model_validator(mode="after")
    def _base_is_of_the_family(self) -> "Profile":
        if self.base is not None and self.base.network.kind != self.model.family:
            raise ValueError(
                f"base.network.kind should be model.family, {self.model.family!r}, "
                f"is {self.base.network.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _full_weights_can_learn(self) -> "Profile":
        full = [n for n, one in (("sft", self.sft), ("cpo", self.cpo)) if one.lora == "full"]
        if full and self.model.quantise is not None:
            raise ValueError(
                f"{full[0]}.lora 'full' trains the base's own weights, which model.quantise "
                f"{self.model.quantise!r} holds in too few bits; set it to null, or give a LoRA"
            )
        npo = [name for name, one in self.cpo.objectives.items() if isinstance(one, NPO)]
        if full and npo:
            raise ValueError(
                f"{full[0]}.lora 'full' does not go with cpo.objectives.{npo[0]}: npo adds up "
                "shares of LoRAs, full weights have none; give LoRAs, or leave npo out"
            )
        return self

    @model_validator(mode="after")
    def _negative_branches_are_painted(self) -> "Profile":
        npo = [name for name, one in self.cpo.objectives.items() if isinstance(one, NPO)]
        if npo and self.evaluate.guidance <= 1:
            raise ValueError(
                f"evaluate.guidance should be above 1 for cpo.objectives.{npo[0]}: without "
                f"guidance there is no negative branch to stand on; is "
                f"{self.evaluate.guidance:g}"
            )
        return self


class Guided(Params):
    """``guided:`` what is painted with guidance, beside NPO and alone."""

    guidance: Annotated[Real, Field(gt=1)]
    methods: Annotated[list[Name], Field(min_length=1)]
    caption_dropout: Fraction  # of a second training of the same methods
    npo: NPO


class Sweep(Params):
    """``sweep:`` one setting of the proposed method, over values."""

    field: str
    values: Annotated[list[Any], Field(min_length=1)]


class Shorter(Params):
    """``steps:`` the same methods, trained for fewer steps."""

    values: list[Count]
    methods: Annotated[list[Name], Field(min_length=1)]


class StudyParams(Params):
    """``params/study.yaml``: what ``python -m flows study`` runs."""

    profile: Name
    seeds: Annotated[list[Seed], Field(min_length=1)]
    tuning_seed: Seed
    tuning_prompts: Count
    bootstrap: Count
    reference: str  # a painter: differences are taken to it, and to the base
    proposed: Name
    settings: dict[str, Any]  # changes of the profile for all runs, by dotted names
    methods: dict[Name, Annotated[list[Objective], Field(min_length=1)]]
    guided: Guided | None
    sweep: Sweep | None
    variants: dict[Name, dict[str, Any]]  # changes of the proposed method as chosen
    steps: Shorter | None
    volumes: list[Annotated[Real, Field(gt=0, lt=1)]]  # split.train_share

    @model_validator(mode="after")
    def _is_fair_and_whole(self) -> "StudyParams":
        budgets = {name: len(entries) for name, entries in self.methods.items()}
        if len(set(budgets.values())) > 1:
            raise ValueError(f"methods should have equally many configurations, have {budgets}")
        if self.tuning_seed in self.seeds:
            raise ValueError(f"tuning_seed {self.tuning_seed} should be none of seeds")
        named = [self.proposed, *(self.guided.methods if self.guided else ())]
        unknown = {*named, *(self.steps.methods if self.steps else ())} - set(self.methods)
        if unknown:
            raise ValueError(f"methods has no {', '.join(sorted(unknown))}")
        return self


class Switch(Params):
    """``params/profile.yaml``: which profile is in force."""

    profile: Name


def read_profile(path: Path) -> Profile:
    """Read and check one profile.

    Raises:
        ParamsError: The file is absent, is no YAML, or does not fit; all mistakes at once.
    """
    return _read(path, Profile)


def read_study(path: Path) -> StudyParams:
    """Read and check ``params/study.yaml``.

    Raises:
        ParamsError: As for ``read_profile``.
    """
    return _read(path, StudyParams)


def read_switch(path: Path) -> str:
    """Return the name of the profile that ``params/profile.yaml`` puts in force.

    Raises:
        ParamsError: As for ``read_profile``.
    """
    return _read(path, Switch).profile


def recorded_model(values: object, where: str) -> ModelParams:
    """Read a ``model:`` that was kept beside a model, maybe by an earlier version of this code.

    Settings that did not exist then are filled with what the model was made with.

    Args:
        values: As they were kept.
        where: Whose they are, for the error.

    Raises:
        ArtifactError: They do not fit all the same.
    """
    if isinstance(values, dict):
        values = _BEFORE_IT_WAS_A_SETTING | values
    try:
        return ModelParams.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(
            f"{where} was registered with a `model:` that this version of the code does not "
            f"read:\n{explain(error)}\nCheck out the commit on its tag git.commit, or register "
            "it again from there"
        ) from None


def _read(path: Path, section: type[Section]) -> Section:
    try:
        values = reading.yaml_values(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "nothing"
        raise ParamsError(
            f"{path} is absent; `profile:` in params/profile.yaml names a file of params/, "
            f"where there is: {there}"
        ) from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    except reading.UnreadableError as error:
        raise ParamsError(f"{path} is {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path} should hold sections (`model:`, `sft:`, …), holds {reading.short(values)}"
        )
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path} does not fit:\n" + explain(error)) from None


def explain(error: ValidationError) -> str:
    """The mistakes of a validation, a line each: field, what is allowed, what was there."""
    mistakes = error.errors(include_url=False, include_context=False)
    lines = [f"  {_field(one['loc'])}: {_reason(one)}" for one in mistakes[:_SHOWN]]
    more = len(mistakes) - _SHOWN
    return "\n".join([*lines, *[f"  and {more} more"] * (more > 0)])


def _field(location: tuple[int | str, ...]) -> str:
    parts = (str(part) for part in location)
    return (
        ".".join(
            part if part.isprintable() and len(part) <= 80 else reading.short(part)
            for part in parts
        )
        or "(whole file)"
    )


def _reason(mistake: Any) -> str:
    text = mistake["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    if mistake["type"] in {"missing", "value_error"}:
        return str(text)
    return f"{text}, got {reading.short(mistake['input'])}"
