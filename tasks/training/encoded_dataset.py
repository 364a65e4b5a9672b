"""The encoded data set that training stages read: built once, cached."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from atelier import images, out_of_memory
from atelier.config.model import ModelParams
from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from atelier.errors import ParamsError
from atelier.images import Framed, Size
from atelier.models import pipelines
from atelier.models.denoiser import Denoiser
from atelier.reporting import Report
from atelier.training import cache, latents
from atelier.training.corpus import Corpus, Rows
from tasks.run import paths, progress
from tasks.training import pictures

_IMAGES_AT_ONCE = 16
_TOKENS_AT_ONCE = 8192
_LARGE_ENCODERS = 500_000_000  # weights
_CURES_OF_TEXTS = (
    "model.dtype: bfloat16 (if it is float32)",
    "a smaller model.text_tokens or model.text_chunks",
    "end other programs that hold the device's memory",
)
_KEPT = "What was encoded is kept in artifacts/cache"


def encode(
    painter: Denoiser,
    records: Sequence[Record],
    prompts: Mapping[str, Sequence[Sequence[str]]],
    profile: Profile,
    *,
    keep_texts: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> Corpus:
    """Return the corpus of ``records``; afterwards the painter has no codec in memory.

    Latents and conditions lie on disk, and a batch's are read when it is drawn. Text encoders
    leave memory, too, unless ``model.store_texts`` is false: then they encode what a batch
    asks for.

    Args:
        painter: Whose codec and text encoders are used.
        records: The images, in order.
        prompts: For each role, the prompts of each image.
        profile: Its model's sizes, and how large a picture may be read.
        keep_texts: Whether the text encoders stay, for prompts that are not known yet.
        begun: Called where something has to be encoded first.

    Raises:
        ParamsError: The buckets are of sizes that the painter does not paint.
        ArtifactError: A picture cannot be read any more.
    """
    every = [""] + [prompt for role in prompts.values() for row in role for prompt in row]
    distinct = list(dict.fromkeys(every))
    stored = profile.model.store_texts
    conditions: Mapping[str, Rows] = (
        _texts(painter, distinct, begun) if stored else latents.OnDemand(painter, distinct)
    )
    sizes = _sizes(painter, records, profile)
    encoded = _latents(painter, records, sizes, profile, begun)
    painter.release_encoders(texts=stored and not keep_texts)
    number = {prompt: row for row, prompt in enumerate(distinct)}
    return Corpus(
        latents=encoded.latents,
        prompts=conditions,
        rows={
            role: torch.tensor([[number[prompt] for prompt in row] for row in of_images])
            for role, of_images in prompts.items()
        },
        empty=number[""],
        buckets=_buckets(sizes),
        frames=_all(encoded.frames) if profile.model.true_sizes else None,
    )


def _after(begun: Callable[[], None], report: Report) -> Report:
    """Say that encoding has begun where there is something to report: something is lacking."""

    def told(done: int, values: Mapping[str, float]) -> None:
        begun()
        report(done, values)

    return told


def _texts(
    painter: Denoiser, prompts: Sequence[str], begun: Callable[[], None]
) -> Mapping[str, cache.Column]:
    """The conditions of prompts, encoded once and stored."""
    with (
        progress.bar("text embeddings", len(prompts), "prompts") as report,
        out_of_memory.explained("Encoding the prompts", _CURES_OF_TEXTS, then=_KEPT),
    ):
        return latents.texts(
            painter,
            prompts,
            folder=paths.CACHE,
            batch_texts=_texts_at_once(painter),
            report=_after(begun, report),
        )


def _texts_at_once(painter: Denoiser) -> int:
    """Prompts encoded together; one by one on a CPU that takes seconds for each."""
    encoders = [encoder for _, encoder in pipelines.readers(painter.parts())]
    weights = sum(one.numel() for encoder in encoders for one in encoder.parameters())
    if weights >= _LARGE_ENCODERS and encoders[0].device.type == "cpu":
        return 1
    return max(_TOKENS_AT_ONCE // painter.token_budget, 1)


def _latents(
    painter: Denoiser,
    records: Sequence[Record],
    sizes: Sequence[Size],
    profile: Profile,
    begun: Callable[[], None],
) -> latents.Encoded:
    files = {record.image: record.file for record in records}

    def framed(image: str, size: Size) -> Framed:
        return images.cover(pictures.opened(files[image], profile), size)

    with (
        progress.bar("latents", len(records), "images") as report,
        out_of_memory.explained("Encoding the pictures", _cures(profile.model), then=_KEPT),
    ):
        return latents.latents(
            painter,
            [record.image for record in records],
            sizes,
            framed,
            folder=paths.CACHE,
            batch_images=_IMAGES_AT_ONCE,
            report=_after(begun, report),
        )


def _cures(model: ModelParams) -> list[str]:
    """What makes encoding of pictures smaller, the first of it without any other result."""
    area, codec = model.pixels**2, model.codec
    at_once = codec.pixels_at_once
    return [
        *(
            [f"model.codec.pixels_at_once: {area} (now {at_once}; one picture at a time)"]
            if at_once is None or at_once >= 2 * area
            else []
        ),
        *(["model.codec.tile_pixels: 512"] if codec.tile_pixels is None else []),
        "a smaller model.pixels",
    ]


def _sizes(painter: Denoiser, records: Sequence[Record], profile: Profile) -> list[Size]:
    """At which size each picture is learned: the square, or the nearest bucket's."""
    model = profile.model
    if model.buckets is None:
        return [(model.pixels, model.pixels)] * len(records)
    _check_step(painter, model)
    sizes = images.sizes_of_area(
        model.pixels, model.buckets.step_pixels, model.buckets.longest_ratio
    )
    files = {record.image: record.file for record in records}

    def measure(missing: Sequence[str]) -> dict[str, Tensor]:
        found = [pictures.size(files[image], profile) for image in missing]
        return {"size": torch.tensor(found, dtype=torch.float32)}

    with progress.bar("sizes", len(records), "images") as report:
        measured = cache.filled(
            paths.CACHE / "sizes", list(files), measure, batch=_IMAGES_AT_ONCE, report=report
        )
    found = [measured.read(record.image, "size").int().tolist() for record in records]
    return [images.nearest((height, width), sizes) for height, width in found]


def _check_step(painter: Denoiser, model: ModelParams) -> None:
    assert model.buckets is not None
    step = model.buckets.step_pixels
    _, one, _ = painter.latent_shape(step)
    _, two, _ = painter.latent_shape(2 * step)
    if one == 0 or two != 2 * one:
        raise ParamsError(
            f"model.buckets.step_pixels should be a multiple of what {model.family} paints in, "
            f"is {step}; take 64, as the hub's models were trained with"
        )


def _buckets(sizes: Sequence[Size]) -> list[Tensor] | None:
    distinct = sorted(set(sizes))
    if len(distinct) == 1:
        return None
    return [
        torch.tensor([row for row, own in enumerate(sizes) if own == size]) for size in distinct
    ]


def _all(column: cache.Column) -> Tensor:
    return column[torch.arange(len(column))]
