"""Validation images during a training, for MLflow alone.

The prompts are captions of the validation set, each with a fixed starting noise. They are
encoded with the data set, before the encoders leave memory; the codec stays. The random numbers
of the training are not affected: its curve and weights are those of a run without grids.
"""

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atelier import out_of_memory
from atelier.config.training import Grids as GridParams
from atelier.errors import ParamsError
from atelier.models import adapters
from atelier.models.denoiser import Denoiser
from atelier.models.pipelines import check_distilled
from atelier.models.sampling import starting_noise, to_bytes
from atelier.training.corpus import Corpus
from tasks.run import split_parts
from tasks.tracking.mlflow_runs import StageRun

_ROLE = "grid"
_AT_ONCE = 4  # pictures


class Grids:
    """The grids of one stage; made before the painter's encoders are released."""

    def __init__(self, painter: Denoiser, params: GridParams | None, pixels: int) -> None:
        self._painter, self._params, self._pixels = painter, params, pixels
        self._codec = painter.parts().vae if params is not None else None

    def roles(self) -> dict[str, list[list[str]]]:
        """Return the prompts to encode beside a stage's own, by their role.

        Raises:
            ArtifactError: There is no validation set.
            ParamsError: The network's guidance input and ``distilled_guidance`` do not fit.
        """
        if self._params is None:
            return {}
        records = split_parts.read("validation", "training.grids")
        try:
            check_distilled(self._painter.network_config, self._params.distilled_guidance)
        except ParamsError as error:
            raise ParamsError(f"training.grids.{error}") from None
        distinct = sorted({record.caption for record in records})
        count = min(self._params.prompts, len(distinct))
        chosen = [distinct[n * len(distinct) // count] for n in range(count)]
        return {_ROLE: [[caption] for caption in chosen]}

    def look(
        self, name: str, corpus: Corpus, done: int, tracked: StageRun, *, guided: bool = True
    ) -> None:
        """Paint and log a grid if ``done`` steps is when one is due.

        Args:
            name: Of the model, before the word grid.
            corpus: With the grids' prompts.
            done: Steps that the training has done.
            tracked: The stage's run.
            guided: Whether the model is sampled with the guidance that was set.
        """
        if self._params is None or done % self._params.every_steps:
            return
        params = self._params
        if not guided:
            params = params.model_copy(update={"guidance": 1.0})
        network = self._painter.network
        device = next(network.parameters()).device
        drawing = [device] if device.type == "cuda" else []
        with (
            adapters.resting(network),
            torch.random.fork_rng(devices=drawing),
            _explained(),
        ):
            picture = self._paint(params, corpus)
        tracked.picture(f"{name} grid", picture, step=done)

    def _paint(self, params: GridParams, corpus: Corpus) -> Image.Image:
        prompts = corpus.rows[_ROLE][:, 0]
        painted: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
        for first in range(0, len(prompts), _AT_ONCE):
            rows = prompts[first : first + _AT_ONCE]
            seeds = range(first, first + len(rows))
            painted.extend(self._pictures(params, corpus, rows, seeds))
        return Image.fromarray(np.hstack(painted))

    def _pictures(
        self, params: GridParams, corpus: Corpus, rows: Tensor, seeds: Sequence[int]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        painter = self._painter
        device = next(painter.network.parameters()).device
        noise = starting_noise(painter.latent_shape(self._pixels), seeds)
        condition, empty = (
            {name: column[which].to(device) for name, column in corpus.prompts.items()}
            for which in (rows, torch.tensor([corpus.empty]))
        )
        latents = painter.sample(
            noise.to(device),
            condition,
            empty,
            steps=params.steps,
            guidance=params.guidance,
            distilled_guidance=params.distilled_guidance,
        )
        before = painter.parts().vae  # some objectives keep it, too
        painter.parts().register_modules(vae=self._codec)
        try:
            return to_bytes(painter.decode_latents(latents))
        finally:
            painter.parts().register_modules(vae=before)


def _explained() -> contextlib.AbstractContextManager[None]:
    """What to change when the device has too little memory to paint beside a training."""
    return out_of_memory.explained(
        f"Painting {_AT_ONCE} validation images beside a training",
        [
            "model.codec.tile_pixels: 512, which decodes in tiles",
            "the training's grids: null, which paints none",
        ],
        then="What was trained is kept under artifacts/resume, for the same params only",
    )
