"""MLflow pyfunc model of a registered LoRA: prompts in, pictures out.

MLflow copies this file beside the LoRA it registers and runs it on
``mlflow.pyfunc.load_model``; nothing else imports it. What it needs beside the LoRA (the
library, a small base or the published name of a large one, how it is sampled) is in the model's
folder, so the model paints what it painted when it was evaluated, on any machine.

Input: rows with ``prompt`` and ``seed``. Output: rows with ``image``, a PNG in base64::

    model = mlflow.pyfunc.load_model("models:/atelier-starter-theta@champion")
    rows = model.predict(pandas.DataFrame({"prompt": ["a red landscape"], "seed": [1]}))
    PIL.Image.open(io.BytesIO(base64.b64decode(rows["image"][0])))
"""

import base64
import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from atelier import images
from atelier.config.model import ModelParams, recorded_model
from atelier.models import adapters, loading, sampling
from atelier.reporting import silent

_NAME = "registered"
_BASE = "base"  # the artifact of a small base


class Painting(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The base with one LoRA; loaded once, at ``load_model``."""

    def load_context(self, context: Any) -> None:
        """Load the base that the config names, and the LoRA in the same folder."""
        config = context.model_config
        self._painter = loading.load(_model(config, context.artifacts))
        adapters.attach(self._painter, _NAME, Path(context.artifacts["lora"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Paint a picture for each row.

        Args:
            context: MLflow's; holds the config.
            model_input: Columns ``prompt`` and ``seed``.
            params: ``steps`` and ``guidance``; as evaluated unless given.
        """
        config = {**context.model_config, **(params or {})}
        with adapters.use(self._painter.network, _NAME):
            pictures = sampling.paint(
                self._painter,
                [str(prompt) for prompt in model_input["prompt"]],
                [int(seed) for seed in model_input["seed"]],
                self._sampling(config),
                pixels=int(config["model"]["pixels"]),
                batch_images=int(config["batch_images"]),
                report=silent,
            )
            files = [base64.b64encode(images.png(pixels)).decode() for pixels in pictures]
            return pd.DataFrame({"image": files})

    def _sampling(self, config: dict[str, Any]) -> sampling.Sampling:
        """Return how it is sampled; models of before the setting read a guidance of 1."""
        reads = getattr(self._painter.network.config, "guidance_embeds", False)
        distilled = config.get("distilled_guidance", 1.0 if reads else None)
        return sampling.Sampling(int(config["steps"]), float(config["guidance"]), distilled)


def _model(config: dict[str, Any], artifacts: dict[str, str]) -> ModelParams:
    """Return the base to load: the one in this folder, else a folder or a published name.

    A folder that was too large to copy is looked for where ``ATELIER_BASE`` says, then from the
    working directory. Models of earlier days name the folder of their repository.
    """
    model = recorded_model(config["model"], "this model")
    beside = Path(config.get("root", "")) / model.source
    source = artifacts.get(_BASE) or os.environ.get("ATELIER_BASE")
    if source is None and beside.is_dir():
        source = str(beside)
    return model if source is None else model.model_copy(update={"source": source})


mlflow.models.set_model(Painting())
