"""``atelier base``: trains a small base model from random weights.

A base model is an input, as SDXL is for a user, and not a stage. Captions of the sketchbook
name only subject and hue, so the base draws good and bad poles alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from atelier import atomic, images
from atelier.config.base import BaseParams, PCACodec
from atelier.config.profile import Profile
from atelier.criteria import dataset, tree
from atelier.errors import ArtifactError, ImageError, ParamsError
from atelier.models import codec, loading, sampling
from atelier.models.denoiser import Denoiser, quiet
from atelier.models.small import pipelines
from atelier.objectives import denoising
from atelier.reporting import silent
from atelier.starter import drawings
from atelier.training import ranks
from atelier.training.corpus import Corpus
from tasks.run import paths, pins, progress, resume
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import trainer

_CODEC_PICTURES = 600  # as many as the PCA is fitted to
_ENCODED_AT_ONCE = 32
_CODECS = {  # of a folder; of the others AutoencoderTiny
    "flux2_klein": "AutoencoderKLFlux2",
    "qwen_image": "AutoencoderKLQwenImage",
}
_GRID = (4, 8)  # rows and columns of the sample grid


@dataclass(frozen=True)
class _Captioned:
    """Pictures of the corpus, ``[N, H, W, 3]``, and their captions."""

    pixels: images.Pixels
    captions: list[str]


def run(profile: Profile, tracked: StageRun) -> None:
    """Train the base of ``base:``, write it where ``model.source`` says, and pin it.

    Raises:
        ParamsError: The profile trains no base.
        ArtifactError: The corpus cannot be read, or DVC cannot pin the base.
    """
    params = profile.base
    if params is None:
        raise ParamsError(
            "this profile has `base: null`: its model is loaded, not trained here; fill "
            "`base:` as in params/starter.yaml to train a small one"
        )
    together = ranks.join()
    if together.sharded:
        raise ParamsError(
            "`base` trains all weights, and only frozen ones are shared out over processes; "
            "run it without ATELIER_SHARDED, or by accelerate launch --multi_gpu"
        )
    target = Path(profile.model.source)
    work = resume.folder("base", params, profile.model, *_files(params))
    before = None if params.init is None else _card(Path(params.init))
    captioned = _read(params, profile)
    painter = _start(params, captioned, profile)
    curve = trainer.teach(
        "base",
        painter,
        dict(painter.network.named_parameters()),
        denoising.step(
            painter,
            _encoded(painter, captioned),
            params.training,
            role="caption",
            caption_dropout=params.caption_dropout,
            weighting="constant",
        ),
        learning_rate=params.learning_rate,
        params=params.training,
        work=work,
        tracked=tracked,
        ranks=together,
    )
    if not together.first:
        return
    _save(painter, target)
    _write_card(painter, params, before, target)
    curve.write(target / "curve.tsv")
    grid = _grid(painter, captioned.captions, params.grid_guidance, profile)
    atomic.write(target / "samples.png", images.png(grid))
    tracked.picture("base samples", Image.fromarray(grid))
    resume.done(work)
    progress.say(pins.add(target))


def _read(params: BaseParams, profile: Profile) -> _Captioned:
    if params.corpus == "sketchbook":
        pictures, captions = [], []
        with progress.bar("sketchbook", params.images, "drawings") as report:
            for drawing in drawings.sketchbook(params.images, params.training.seed):
                pictures.append(
                    images.square(Image.fromarray(drawing.pixels), profile.model.pixels)
                )
                captions.append(drawing.caption)
                report(len(pictures), {})
        return _Captioned(np.stack(pictures), captions)
    return _read_folder(Path(params.corpus), params.images, profile)


def _read_folder(folder: Path, most: int, profile: Profile) -> _Captioned:
    """Pictures of a folder and their mirror images, with captions as annotate has them."""
    pictures, captions = [], []
    for entry in dataset.find(folder, profile.annotate.captions).entries[:most]:
        try:
            image = images.read(folder / entry.file, profile.annotate.largest_pixels)
        except ImageError:
            continue  # annotate's quarantine says why; a base can do without
        square = images.square(image, profile.model.pixels)
        pictures += [square, square[:, ::-1]]
        captions += [entry.caption, entry.caption]
    if not pictures:
        raise ArtifactError(f"base.corpus {str(folder)!r} holds no readable captioned picture")
    return _Captioned(np.stack(pictures), captions)


def _files(params: BaseParams) -> list[Path]:
    """What the result depends on: a folder of pictures, the weights that are trained on."""
    corpus = [] if params.corpus == "sketchbook" else [Path(params.corpus)]
    return corpus if params.init is None else [*corpus, Path(params.init)]


def _start(params: BaseParams, captioned: _Captioned, profile: Profile) -> Denoiser:
    """The pipeline with random weights, or with those of ``init``.

    Raises:
        ArtifactError: ``init`` is no base of this family.
        ParamsError: Its network has another size.
    """
    if params.init is None:
        return _untrained(params, captioned, profile)
    loaded = loading.load(profile.model.model_copy(update={"source": params.init}))
    described = _untrained(params, captioned, profile).network
    if _shapes(loaded.network) != _shapes(described):
        raise ParamsError(
            f"base.network describes another network than base.init, {params.init!r}, holds "
            f"({_count(described):,} weights, {_count(loaded.network):,}); copy `network` from "
            f"{params.init}/base.json, or set base.init to null to start from random weights"
        )
    return loaded


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in network.named_parameters()}


def _card(folder: Path) -> Any:
    """How an earlier base was made; None where its folder does not say."""
    try:
        return json.loads((folder / "base.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _untrained(params: BaseParams, captioned: _Captioned, profile: Profile) -> Denoiser:
    """The pipeline with a fitted codec and random weights, ready to train."""
    criteria = tree.parse(paths.CRITERIA / profile.annotate.criteria)
    phrases = [
        phrase
        for leaf in criteria.leaves().values()
        for phrase in (leaf.positive, leaf.negative)
    ]
    with quiet():
        return pipelines.painter(
            params.network,
            _codec(params, captioned.pixels),
            [*captioned.captions, *phrases],
            text_tokens=profile.model.text_tokens,
            text_chunks=profile.model.text_chunks,
            seed=params.training.seed,
        )


def _codec(params: BaseParams, pixels: images.Pixels) -> Any:
    of = params.codec
    if isinstance(of, PCACodec):
        return codec.fit(
            sampling.to_pixels(pixels[:_CODEC_PICTURES]), of.patch_pixels, of.channels
        )
    import diffusers

    if not Path(of.path).is_dir():
        raise ArtifactError(f"base.codec.path {of.path!r} is no folder")
    kind = getattr(diffusers, _CODECS.get(params.network.kind, "AutoencoderTiny"))
    try:
        return kind.from_pretrained(of.path).float().eval()
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"base.codec.path {of.path!r} cannot be loaded as an {kind.__name__}: {error}"
        ) from None


def _encoded(painter: Denoiser, captioned: _Captioned) -> Corpus:
    distinct = list(dict.fromkeys(["", *captioned.captions]))
    number = {caption: row for row, caption in enumerate(distinct)}
    starts = range(0, len(captioned.pixels), _ENCODED_AT_ONCE)
    batches = (captioned.pixels[first : first + _ENCODED_AT_ONCE] for first in starts)
    return Corpus(
        latents=torch.cat(
            [painter.encode_images(sampling.to_pixels(batch)) for batch in batches]
        ),
        prompts=painter.encode_texts(distinct),
        rows={"caption": torch.tensor([[number[caption]] for caption in captioned.captions])},
        empty=number[""],
    )


def _save(painter: Denoiser, target: Path) -> None:
    """Write the pipeline in half precision: it is committed, or carried about."""
    with quiet(), atomic.clear_disk_errors(target):
        painter.pipeline().to(torch.float16).save_pretrained(target)
        painter.pipeline().to(torch.float32)


def _write_card(painter: Denoiser, params: BaseParams, before: Any, target: Path) -> None:
    """Write a file next to the weights that describes how they were made."""
    card = {
        "made_by": "atelier base",
        "parameters": _count(painter.network),
        "base": params.model_dump(),
        **({} if before is None else {"goes_on_from": before}),
    }
    atomic.write(target / "base.json", json.dumps(card, indent=2) + "\n")


def _grid(
    painter: Denoiser, captions: list[str], guidance: float, profile: Profile
) -> images.Pixels:
    """Paint the most frequent captions once each, so that a person can look."""
    rows, columns = _GRID
    prompts = sorted(set(captions), key=lambda c: (-captions.count(c), c))
    chosen = [prompts[n % len(prompts)] for n in range(rows * columns)]
    sampled = profile.generate
    painted = sampling.paint(
        painter,
        chosen,
        range(len(chosen)),
        sampling.Sampling(sampled.steps, guidance),
        pixels=profile.model.pixels,
        batch_images=sampled.batch_images,
        report=silent,
    )
    pictures = list(painted)
    lines = [np.hstack(pictures[r * columns : (r + 1) * columns]) for r in range(rows)]
    return np.vstack(lines)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
