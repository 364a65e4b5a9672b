"""Saved model: the folder of a registered model, which serves on a machine without this clone.

It holds the weights, the library, the base where it is small or has no published name, and the
versions of the packages. It names no path of this machine.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import yaml

from atelier.config.profile import Profile
from tasks.run import locked_outs

CODE = Path(__file__).with_name("pyfunc_model.py")  # lies beside the weights, for MLflow to run
FULL = "diffusion_pytorch_model.safetensors"  # all weights, with their config beside
LIBRARY = "code"  # the folder of a saved model in which MLflow keeps our packages
_PACKAGE = Path(__file__).parents[2] / "atelier"
_REQUIREMENTS = (
    "accelerate", "diffusers", "mlflow", "numpy", "pandas", "peft", "pillow", "pydantic",
    "pyyaml", "safetensors", "torch", "transformers",
)  # fmt: skip
_SMALL = 200 * 2**20  # bytes of a base that is copied; the starter's have 9 MB


def unguided(painter: str, profile: Profile) -> bool:
    """Say whether an objective's weights learned what guidance adds: they need none."""
    objective = profile.cpo.objectives.get(painter)
    return objective is not None and objective.sampled_without_guidance()


def write(folder: Path, painter: str, weights: Path, profile: Profile) -> None:
    """Write the folder that ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` read.

    Args:
        folder: Of the model; made here.
        painter: ``theta1`` or the name of the objective.
        weights: Their file, as dvc.lock knows it.
        profile: With which they were trained.
    """
    import mlflow
    import pandas as pd

    with tempfile.TemporaryDirectory() as parent:
        lora = Path(parent) / "lora"
        lora.mkdir()
        _bring(weights, lora)
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(CODE),
            artifacts={"lora": str(lora)} | _base(profile),
            code_paths=[str(_PACKAGE)],
            model_config=_config(painter, profile),
            input_example=pd.DataFrame({"prompt": ["a landscape in blue"], "seed": [1]}),
            signature=_signature(painter, profile),
            pip_requirements=[f"{name}=={_published(name)}" for name in _REQUIREMENTS],
        )
    _without_places(folder / "MLmodel")


def _bring(weights: Path, folder: Path) -> None:
    with locked_outs.opened() as outs:
        beside = [weights.with_name("config.json")] if weights.name == FULL else []
        for file in (weights, *beside):
            outs.get_file(str(file), str(folder / file.name))


def _base(profile: Profile) -> dict[str, str]:
    """Return the base as an artifact, if it is a small folder."""
    folder = Path(profile.model.source)
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    small = sum(file.stat().st_size for file in files) <= _SMALL
    return {"base": str(folder)} if files and small else {}


def _config(painter: str, profile: Profile) -> dict[str, Any]:
    sampled = profile.generate
    return {
        "model": profile.model.model_dump(),
        "steps": sampled.steps,
        "guidance": _guidance(painter, profile),
        "distilled_guidance": sampled.distilled_guidance,
        "sampled_without_guidance": unguided(painter, profile),
        "batch_images": sampled.batch_images,
    }


def _guidance(painter: str, profile: Profile) -> float:
    return 1.0 if unguided(painter, profile) else profile.generate.guidance


def _signature(painter: str, profile: Profile) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt"), ColSpec("long", "seed")]),
        outputs=Schema([ColSpec("string", "image")]),
        params=ParamSchema(
            [
                ParamSpec("steps", "long", profile.generate.steps),
                ParamSpec("guidance", "double", _guidance(painter, profile)),
            ]
        ),
    )


def _published(package: str) -> str:
    """Return a version without its local part: ``2.11.0+cpu`` is on no index."""
    return importlib.metadata.version(package).partition("+")[0]


def _without_places(file: Path) -> None:
    """Take out of MLmodel where the artifacts and the code lay on this machine."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    flavor = content["flavors"]["python_function"]
    flavor["model_code_path"] = CODE.name  # MLflow looks for the name alone, in this folder
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
