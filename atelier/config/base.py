"""``base:`` of a profile: how a small base model is trained."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from atelier.config.fields import Count, Fraction, Integer, Params, Positive, Real, Whole
from atelier.config.training import Training


class PCACodec(Params):
    """A linear codec fitted to the corpus: PCA of square patches."""

    kind: Literal["pca"]
    """A linear codec, fitted to the corpus: PCA of square patches."""
    patch_pixels: Annotated[Integer, Field(ge=2)]
    """Side of a patch; a power of two. [pixels]"""
    channels: Count
    """Components kept for each patch. [channels]"""


class FolderCodec(Params):
    """An autoencoder that exists: a folder in diffusers' layout."""

    kind: Literal["folder"]
    """An autoencoder that exists already."""
    path: str
    """Folder of the autoencoder in diffusers' layout."""


class FluxNetwork(Params):
    """Size of a small FLUX transformer."""

    kind: Literal["flux"]
    """A small FLUX transformer."""
    double_blocks: Whole
    """Blocks with separate weights for picture and text. [blocks]"""
    single_blocks: Whole
    """Blocks with common weights for picture and text. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Count
    """Width of a head; it is divided among three rotary axes, so it is divisible by 4.
    [channels]"""
    text_width: Count
    """Width of the T5 encoder. [channels]"""
    pooled_width: Count
    """Width of the CLIP encoder. [channels]"""


class Flux2KleinNetwork(Params):
    """Size of a small FLUX.2-klein transformer and of its Qwen3 encoder."""

    kind: Literal["flux2_klein"]
    """A small FLUX.2 klein transformer with its Qwen3 encoder."""
    double_blocks: Whole
    """Blocks with separate weights for picture and text. [blocks]"""
    single_blocks: Whole
    """Blocks with common weights for picture and text. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Annotated[Integer, Field(gt=0, multiple_of=8)]
    """Width of a head, divided among four rotary axes. [channels]"""
    text_width: Annotated[Integer, Field(gt=0, multiple_of=4)]
    """Width of the Qwen3 encoder, of which three layers are read. [channels]"""


class QwenImageNetwork(Params):
    """Size of a small Qwen-Image transformer and of its Qwen2.5-VL encoder."""

    kind: Literal["qwen_image"]
    """A small Qwen-Image transformer with its Qwen2.5-VL encoder."""
    blocks: Count
    """Transformer blocks. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Annotated[Integer, Field(gt=0, multiple_of=4)]
    """Width of a head, divided among three rotary axes. [channels]"""
    text_width: Annotated[Integer, Field(gt=0, multiple_of=16)]
    """Width of the Qwen2.5-VL encoder. [channels]"""


class ZImageNetwork(Params):
    """Size of a small Z-Image transformer and of its Qwen3 encoder."""

    kind: Literal["z_image"]
    """A small Z-Image transformer with its Qwen3 encoder."""
    blocks: Count
    """Transformer blocks on picture and text together. [blocks]"""
    refiner_blocks: Count
    """Blocks before them, on the picture alone and on the text alone. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Annotated[Integer, Field(gt=0, multiple_of=4)]
    """Width of a head, divided among three rotary axes. [channels]"""
    text_width: Annotated[Integer, Field(gt=0, multiple_of=4)]
    """Width of the Qwen3 encoder. [channels]"""


class SDXLNetwork(Params):
    """Size of a small SDXL UNet and of its two CLIP encoders."""

    kind: Literal["sdxl"]
    """A small SDXL UNet with its two CLIP encoders."""
    predicts: Literal["epsilon", "v"]
    """What the network predicts: the noise (epsilon) or v. A network that starts from random
    weights usually predicts v."""
    widths: Annotated[list[Count], Field(min_length=2)]
    """Channels of each level, from fine to coarse. [channels]"""
    attention: list[bool]
    """Whether each level attends to the text; the middle block always does."""
    layers: Count
    """Residual blocks of each level. [blocks]"""
    head_width: Count
    """Width of an attention head; divides every width. [channels]"""
    groups: Count
    """Groups of group normalization; divides every width. [groups]"""
    text_widths: Annotated[list[Count], Field(min_length=2, max_length=2)]
    """Widths of both CLIP encoders. [channels]"""
    pooled_width: Count
    """Width of the second encoder's pooled output. [channels]"""

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
    """A small SD3 transformer with its three text encoders."""
    blocks: Annotated[Integer, Field(ge=2)]
    """Transformer blocks. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Count
    """Width of a head; a multiple of 8. [channels]"""
    text_width: Count
    """Width of the T5 encoder. [channels]"""
    clip_widths: Annotated[list[Count], Field(min_length=2, max_length=2)]
    """Widths of both CLIP encoders. [channels]"""
    pooled_width: Count
    """Width of each CLIP encoder's pooled output. [channels]"""

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
    """A small Chroma transformer."""
    double_blocks: Whole
    """Blocks with separate weights for picture and text. [blocks]"""
    single_blocks: Whole
    """Blocks with common weights for picture and text. [blocks]"""
    heads: Count
    """Attention heads. [heads]"""
    head_width: Count
    """Width of a head; it is divided among three rotary axes, so it is divisible by 4.
    [channels]"""
    text_width: Count
    """Width of the T5 encoder. [channels]"""
    modulation_width: Count
    """Width of the network that computes all blocks' modulations from the time. [channels]"""


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
    """``base:`` how ``atelier base`` trains a small base."""

    init: str | None = None
    """Folder of a base whose training goes on; null: random weights. Its weights, its encoders
    and its codec are taken over, and `network` should describe it."""
    corpus: Literal["sketchbook"] | str
    """What the base is trained on: the drawn sketchbook, or a folder of captioned pictures."""
    images: Count
    """Drawings in the sketchbook; of a folder, at most this many pictures. [images]"""
    codec: Annotated[PCACodec | FolderCodec, Field(discriminator="kind")]
    """The codec (VAE) of the base: fitted here, or an existing folder."""
    network: Network
    """Family and size of the network."""
    caption_dropout: Fraction
    """Share of captions that are replaced by the empty caption. [share]"""
    grid_guidance: Annotated[Real, Field(ge=1)]
    """Classifier-free guidance of the sample grid; 1: off. [number]"""
    learning_rate: Positive
    """Peak learning rate. [number]"""
    training: Training
    """How the base is trained."""

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
