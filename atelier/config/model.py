"""``model:`` of a profile: which base model is trained, and in which precision and size."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from atelier.config.fields import Count, Params, Real
from atelier.config.messages import explain
from atelier.errors import ArtifactError


class Buckets(Params):
    """Sizes of about the area of the square, for pictures that are no squares."""

    step_pixels: Count
    """Every side is a multiple of it: of 8 for sdxl, of 16 for the others. [pixels]"""
    longest_ratio: Annotated[Real, Field(ge=1)]
    """Largest ratio of the longer side to the shorter side. [ratio]"""


class Codec(Params):
    """How the codec (VAE) encodes and decodes pictures; for its memory."""

    pixels_at_once: Count | None
    """Area up to which pictures are encoded and decoded together, else one by one with the same
    latents; null: a whole batch at once. In float32, 1024 × 1024 takes about 2.7 GB to encode
    and 5 GB to decode. [pixels]"""
    tile_pixels: Count | None
    """Side of the overlapping tiles into which a picture is divided, with almost the same
    result; null: no tiles. [pixels]"""


class ModelParams(Params):
    """``model:`` which painter is taught."""

    family: Literal["chroma", "flux", "flux2_klein", "qwen_image", "sd3", "sdxl", "z_image"]
    """Model family: which network, noise process and text encoders."""
    source: str
    """A folder in diffusers' layout, or the id of a model on the hub."""
    revision: str | None
    """Commit of the model on the hub; null for a folder."""
    published: str | None = None
    """Hub id of the base of which a folder is a copy, for model cards; null: the folder's name.
    """
    dtype: Literal["float32", "bfloat16", "float16"]
    """Precision of the frozen base; adapters are float32."""
    quantise: Literal["int8", "fp8", "nf4"] | None
    """Quantization of the base's linear layers; null: none."""
    attention: Literal["math", "efficient", "flash", "cudnn", "flash-2", "flash-3"] | None = (
        None
    )
    """Kernel of the network's attention: torch's math, efficient, flash or cudnn, or the
    packages flash-attn 2 and 3; null: torch chooses, as chroma, sd3 and sdxl always let it."""
    pixels: Count
    """Side of the square pictures that are painted and trained on. [pixels]"""
    text_tokens: Count
    """Length to which T5 or Qwen pads prompts; sdxl ignores it. [tokens]"""
    text_chunks: Count
    """Chunks of 75 tokens that CLIP reads one by one; only sdxl reads more than one. [chunks]
    """
    buckets: Buckets | None
    """Sizes to which training cuts pictures that are not square; null: the center square."""
    true_sizes: bool
    """Whether training tells the network each picture's own size and crop; only sdxl can read
    them."""
    store_texts: bool = True
    """Whether each prompt's text condition is stored on disk. If false, the text encoders stay
    in memory and encode a batch's prompts in each step. A prompt of FLUX takes 4 MB."""
    codec: Codec = Codec(pixels_at_once=1024 * 1024, tile_pixels=None)
    """How much the codec (VAE) encodes and decodes at once, which decides its memory."""


def public_name(model: ModelParams) -> str:
    """Return what a base is called in cards, tags and reports: no place on a machine."""
    if model.published is not None:
        return model.published
    folder = PurePath(model.source)
    outside = folder.is_absolute() or folder.parts[:1] in {("..",), ("~",)}
    return folder.name if outside else model.source


# What a model that was written down before a setting existed was made with.
_BEFORE_IT_WAS_A_SETTING = {
    "quantise": None,
    "text_chunks": 1,
    "buckets": None,
    "true_sizes": False,
}


def recorded_model(values: object, where: str) -> ModelParams:
    """Read the ``model:`` stored with a model, perhaps by an earlier version of this code.

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
