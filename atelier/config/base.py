"""``base:`` of a profile: how a small base model is trained from nothing."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from atelier.config.fields import Count, Fraction, Integer, Params, Positive, Real, Whole
from atelier.config.training import Training


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


class Flux2KleinNetwork(Params):
    """Size of a small FLUX.2-klein transformer and of its Qwen3 encoder."""

    kind: Literal["flux2_klein"]
    double_blocks: Whole
    single_blocks: Whole
    heads: Count
    head_width: Annotated[Integer, Field(gt=0, multiple_of=8)]  # split over four rotary axes
    text_width: Annotated[
        Integer, Field(gt=0, multiple_of=4)
    ]  # of Qwen3; three layers are read


class QwenImageNetwork(Params):
    """Size of a small Qwen-Image transformer and of its Qwen2.5-VL encoder."""

    kind: Literal["qwen_image"]
    blocks: Count
    heads: Count
    head_width: Annotated[Integer, Field(gt=0, multiple_of=4)]  # split over three rotary axes
    text_width: Annotated[Integer, Field(gt=0, multiple_of=16)]  # of Qwen2.5-VL


class ZImageNetwork(Params):
    """Size of a small Z-Image transformer and of its Qwen3 encoder."""

    kind: Literal["z_image"]
    blocks: Count
    refiner_blocks: Count  # before them, of the picture alone and of the text alone
    heads: Count
    head_width: Annotated[Integer, Field(gt=0, multiple_of=4)]  # split over three rotary axes
    text_width: Annotated[Integer, Field(gt=0, multiple_of=4)]  # of Qwen3


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
                    f"each of widths, but do not divide {width}"
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
                f"the sum of clip_widths should be at most text_width, {self.text_width}; it "
                f"is {sum(self.clip_widths)}"
            )
        return self


class ChromaNetwork(Params):
    """Size of a small Chroma transformer."""

    kind: Literal["chroma"]
    double_blocks: Whole
    single_blocks: Whole
    heads: Count
    head_width: Count  # split over the three rotary axes; divisible by 4
    text_width: Count  # of the T5 encoder
    modulation_width: Count  # of the network that makes all blocks' modulations of the time


Network = Annotated[
    ChromaNetwork
    | Flux2KleinNetwork
    | FluxNetwork
    | QwenImageNetwork
    | SD3Network
    | SDXLNetwork
    | ZImageNetwork,
    Field(discriminator="kind"),
]


class BaseParams(Params):
    """``base:`` how ``atelier base`` trains a small base from nothing."""

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

    @model_validator(mode="after")
    def _codec_is_the_familys(self) -> "BaseParams":
        kind = self.network.kind
        if kind in ("flux2_klein", "qwen_image") and self.codec.kind == "pca":
            raise ValueError(
                f"codec.kind should be folder for {kind}, whose pipeline reads what a codec of "
                "its own class alone has; it is pca"
            )
        return self

    @field_validator("training")
    @classmethod
    def _paints_at_its_end(cls, training: Training) -> Training:
        if training.grids is not None:
            raise ValueError("grids should be null here: a base writes one grid, at its end")
        return training
