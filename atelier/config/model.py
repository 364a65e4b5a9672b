"""``model:`` of a profile: which base model is trained, and in which precision and size."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from atelier.config.fields import Count, Params, Real
from atelier.config.messages import explain
from atelier.errors import ArtifactError


class Buckets(Params):
    """Sizes of about the area of the square, for pictures that are no squares."""

    step_pixels: Count  # every side is a multiple of it; of 8 for sdxl, of 16 for the others
    longest_ratio: Annotated[Real, Field(ge=1)]  # of the longer side to the shorter one


class Codec(Params):
    """How the codec (VAE) encodes and decodes pictures; for its memory."""

    # Pictures are encoded and decoded together up to this area in all, else one by one, with
    # the same latents. About 2.7 GB (encoding) and 5 GB (decoding) for 1024 x 1024 in float32.
    pixels_at_once: Count | None  # null: all of a batch at once
    tile_pixels: Count | None  # a picture in overlapping tiles of this side, almost the same


class ModelParams(Params):
    """``model:`` which painter is taught."""

    family: Literal["chroma", "flux", "flux2_klein", "qwen_image", "sd3", "sdxl", "z_image"]
    source: str  # a folder in diffusers' layout, or a hub id
    revision: str | None  # commit of the hub id; null for a folder
    published: str | None = None  # hub id of the base that a folder is a copy of, for cards
    dtype: Literal["float32", "bfloat16", "float16"]  # of the frozen base; adapters are float32
    quantise: Literal["int8", "nf4"] | None  # the base's linear layers; null: as dtype says
    pixels: Count  # side of the square pictures
    text_tokens: Count  # length to which T5 or Qwen pads prompts; ignored by sdxl
    text_chunks: Count  # of 75 tokens that CLIP reads one by one; of sdxl, others read on
    buckets: Buckets | None  # sizes that training cuts pictures to; null: the middle square
    true_sizes: bool  # training tells a picture's own size and crop; families without ignore it
    # Text conditions lie on disk, encoded once; false: the encoders stay in memory and encode a
    # batch's prompts in each step, and nothing is stored. Of FLUX a prompt takes 4 MB.
    store_texts: bool = True
    codec: Codec = Codec(pixels_at_once=1024 * 1024, tile_pixels=None)


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
