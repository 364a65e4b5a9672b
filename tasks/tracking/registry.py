"""MLflow model registry, kept in agreement with dvc.lock: ``atelier registry``.

A stage that DVC skips, restores or pulls does not run, so the stages do not write the registry;
it is reconciled with dvc.lock, any number of times:

* θ1 is a version of ``atelier-<profile>-theta1``, each θ one of ``atelier-<profile>-theta``,
  known by the md5 that DVC gives the LoRA: the same weights are the same version;
* a version's bytes come from DVC's cache, and its source is the run that wrote them;
* what the report says is attached to the model, and its headlines are the version's tags,
  provided that it was measured on these very weights;
* the alias ``champion`` is on the θ of this dvc.lock that has the lowest #A_neg among those
  that are no worse than the base in what ``report.champion`` names (FID, KID or a judge); where
  there is none, or that was not measured, on none. After a revert it is back where it was.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from atelier.config.evaluation import ChampionGuard
from atelier.config.model import ModelParams, public_name, recorded_model
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.errors import ArtifactError
from tasks.run import locked_outs, paths
from tasks.tracking import connection, mlflow_runs, sync
from tasks.training import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

LORA = "pytorch_lora_weights.safetensors"
FULL = "diffusion_pytorch_model.safetensors"  # all weights, with their config beside
BASE, THETA1 = "base", "theta1"  # candidates, as the report names them; a θ has its objective's
CHAMPION = "champion"
_LONGEST_TAG = 5000  # characters, in any of MLflow's stores
_LOWER_IS_BETTER = {"fid", "kid", "second_judge"}
_CARD = "README.md"
_FROM_DVC = "atelier.from-dvc"  # the tag of a run that stands for weights that were pulled
_CODE = Path(__file__).with_name(
    "pyfunc_model.py"
)  # lies beside the weights, for MLflow to run
_REQUIREMENTS = ("torch", "diffusers", "transformers", "peft", "safetensors", "pydantic")


@dataclasses.dataclass(frozen=True)
class Weights:
    """A LoRA, or full weights, of this dvc.lock."""

    painter: str  # theta1, or the name of the objective
    md5: str
    file: Path

    @property
    def kind(self) -> str:
        """Return ``theta1`` or ``theta``, the end of the registered model's name."""
        return THETA1 if self.painter == THETA1 else "theta"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the report wrote: the suite of each painter, and the md5 of the file."""

    md5: str
    suites: Mapping[str, Mapping[str, float]]

    def has(self, painter: str, guard: str) -> bool:
        """Say whether a guard of champions was measured of a painter."""
        return _column(guard) in self.suites.get(painter, {})

    def passes(self, painter: str, guard: str) -> bool:
        """Say whether a painter is no worse than the base in a guard of champions."""
        if not (self.has(painter, guard) and self.has(BASE, guard)):
            return False
        mine, bases = (self.suites[name][_column(guard)] for name in (painter, BASE))
        return mine <= bases if guard in _LOWER_IS_BETTER else mine >= bases


def trained_by(model: str, profile: Profile) -> dict[str, Any]:
    """Return the settings of a model's training, for runs and versions; see ``settings``."""
    return settings.of(model, profile)


def run(*, evaluating: bool = False) -> None:
    """Bring the registry up to date; MLflow being away is said, and is no error.

    Args:
        evaluating: Called at the end of ``report``: its results are fresh, though dvc.lock
            does not know them yet.

    Raises:
        ParamsError: The profile in force does not fit.
    """
    name = read_switch(paths.SWITCH)
    profile = read_profile(paths.profile(name))
    try:
        sync.deliver()
        if mlflow_runs.STUDY in os.environ:
            lines = ["the models of a study's experiments are not registered"]
        else:
            lines = list(_reconcile(name, profile, evaluating))
    except ArtifactError:
        raise
    except Exception as error:  # MLflow must not break a pipeline that has its results
        lines = [_as_it_was(error)]
    for line in lines:
        sys.stdout.write(f"registry: {line}\n")


def fetch(address: str) -> tuple[ModelParams, Path, bool]:
    """Return the base and the LoRA's folder of a registered model, and whether it is guided.

    Args:
        address: ``models:/<name>/<version>`` or ``models:/<name>@<alias>``.

    Raises:
        ArtifactError: The registry has no such model, does not answer, or was told of it by a
            version of this code that wrote other settings down.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    with connection.alone():
        connection.client()
        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
        except (MlflowException, OSError) as error:
            raise ArtifactError(
                connection.without_password(
                    f"{address} cannot be read from MLflow at "
                    f"{connection.tracking_uri()}: {error}"
                )
            ) from None
    try:
        flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        python = flavor["python_function"]
        config, lora = python["config"], folder / python["artifacts"]["lora"]["path"]
        base, root = recorded_model(config["model"], address), Path(config["root"])
    except (OSError, KeyError, TypeError):
        raise ArtifactError(
            f"{address} is no model that `atelier registry` made: its file MLmodel "
            "names no base and no LoRA"
        ) from None
    beside = root / base.source
    if beside.is_dir():
        base = base.model_copy(update={"source": os.path.relpath(beside)})
    return base, lora, not config.get("sampled_without_guidance", False)


def known(address: str) -> tuple[str, str]:
    """Return the painter of a registered model, and DVC's md5 of its weights.

    Args:
        address: ``models:/<name>/<version>`` or ``models:/<name>@<alias>``.

    Raises:
        ArtifactError: The registry has no such model, or it was not registered from here.
    """
    from mlflow.exceptions import MlflowException

    name, _, number = address.removeprefix("models:/").partition("/")
    with connection.alone():
        mlflow = connection.client()
        try:
            if "@" in name:
                version = mlflow.get_model_version_by_alias(*name.split("@", 1))
            else:
                version = mlflow.get_model_version(name, number)
            return version.tags["painter"], version.tags["dvc.md5"]
        except (MlflowException, KeyError, TypeError) as error:
            raise ArtifactError(
                connection.without_password(
                    f"{address} is no model that `atelier registry` made, in MLflow at "
                    f"{connection.tracking_uri()}: {error}"
                )
            ) from None


def evaluated_weights() -> dict[str, str]:
    """Return DVC's md5 of the weights that the report's results are of, by candidate.

    Empty where dvc.lock does not vouch for it: there is no report, or something changed.
    """
    lock = _lock()
    measured = _measured(lock, evaluating=False)
    if measured is None:
        return {}
    return {one.painter: one.md5 for one in _weights(lock) if one.painter in measured.suites}


def surveyed(
    study: str, md5: str, painters: Mapping[str, tuple[str, Mapping[str, float], str]]
) -> list[str]:
    """Put what people said on the model versions that they judged, once; say on which.

    Args:
        study: Its name; metrics are called ``survey/<study>/…``.
        md5: Of the results; the same results are not logged again.
        painters: By the md5 of its weights, as DVC counts it: the painter, its metrics, and a
            sentence for the version's tag.

    Returns:
        A line for each version.
    """
    try:
        return list(_surveyed(study, md5, painters))
    except Exception as error:  # the results are in their files, whatever MLflow does
        return [_as_it_was(error)]


def _as_it_was(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or type(error).__module__.startswith("dvc"):
        return (
            "the registry is as it was: dvc.lock names weights that are neither in DVC's cache "
            "here nor in a remote, as after a stage was run by hand, or with the dvc.lock of "
            "another clone; `dvc repro` makes them and records them, `dvc pull` fetches them"
        )
    said = f"the registry is as it was: {type(error).__name__}: {error}"
    return connection.without_password(said)[:200]


def _surveyed(
    study: str, md5: str, painters: Mapping[str, tuple[str, Mapping[str, float], str]]
) -> Iterator[str]:
    with connection.alone():
        mlflow = connection.client()
        for weights, (painter, values, headline) in painters.items():
            key = f"tags.`dvc.md5` = '{weights}'"
            for version in mlflow.search_model_versions(key):
                if version.tags.get(f"survey.{study}.md5") != md5:
                    model = version.source.removeprefix("models:/")
                    for name, value in values.items():
                        mlflow.log_metric(
                            version.run_id, f"survey/{study}/{name}", value, model_id=model
                        )
                    for tag, text in ((study, headline), (f"{study}.md5", md5)):
                        mlflow.set_model_version_tag(
                            version.name, version.version, f"survey.{tag}", text
                        )
                yield f"{painter}, {version.name} version {version.version}: {headline}"


def address(name: str, profile: str) -> str | None:
    """Return the address, with its number, of ``theta/3``, ``theta@champion`` or an alias.

    Args:
        name: As a person writes it; an alias alone is one of θ.
        profile: Whose models are meant.
    """
    from mlflow.exceptions import MlflowException

    short = name.removeprefix("models:/").removeprefix(f"atelier-{profile}-")
    if "/" not in short and "@" not in short:
        short = f"theta@{short}"
    kind, at, alias = short.partition("@")
    registered, _, number = kind.partition("/")
    registered = f"atelier-{profile}-{registered}"
    with connection.alone():
        mlflow = connection.client()
        try:
            version = (
                mlflow.get_model_version_by_alias(registered, alias)
                if at
                else mlflow.get_model_version(registered, number)
            )
        except MlflowException:
            return None
    return f"models:/{registered}/{version.version}"


def listed(profile: str) -> list[str]:
    """Return what a person may write for each model of a profile, the newest first.

    Raises:
        ArtifactError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    with connection.alone():
        try:
            found = connection.client().search_model_versions(
                f"name LIKE 'atelier-{profile}-%'"
            )
        except MlflowException as error:
            where = connection.without_password(connection.tracking_uri())
            raise ArtifactError(
                f"MLflow at {where} does not answer, so its models are not known: "
                + connection.without_password(str(error))[:160]
            ) from None
    names = [f"{one.name.removeprefix(f'atelier-{profile}-')}/{one.version}" for one in found]
    return ["base", *names]


def point(alias: str, to: str, why: str) -> None:
    """Move an alias to the model with the address ``to``, and write there why."""
    registered, version = to.removeprefix("models:/").split("/")
    with connection.alone():
        mlflow = connection.client()
        mlflow.set_registered_model_alias(registered, alias, version)
        mlflow.set_model_version_tag(registered, version, f"{alias}.why", why)


def log_comparison(profile: str, said: Mapping[str, Any], file: Path) -> None:
    """Record a comparison as its own run, outside the pipeline's run."""
    with connection.alone():
        mlflow = connection.client()
        at = connection.experiment(mlflow, profile)
        tags = mlflow_runs.provenance() | {
            "comparison": f"{said['B']['model']} against {said['A']['model']}",
            "better": str(said["better"]).lower(),
            "mlflow.note.content": str(said["why"]),
            "mlflow.source.name": "atelier compare",
        }
        made = mlflow.create_run(at, run_name=f"compare: {tags['comparison']}", tags=tags)
        run = made.info.run_id
        for letter in "AB":
            mlflow.log_metric(run, f"{letter}.negatives", said[letter]["negatives"]["estimate"])
            if said[letter]["fid"] is not None:
                mlflow.log_metric(run, f"{letter}.fid", said[letter]["fid"]["fid"])
        for end in ("estimate", "low", "high"):
            mlflow.log_metric(run, f"difference.{end}", said["difference"][end])
        mlflow.log_artifact(run, str(file))
        mlflow.set_terminated(run)


def _reconcile(name: str, profile: Profile, evaluating: bool) -> Iterator[str]:
    lock = _lock()
    weights = list(_weights(lock))
    if not weights:
        yield "dvc.lock has no trained model yet"
        return
    measured = _measured(lock, evaluating)
    if measured and (other := [one for one in weights if _lies_otherwise(one)]):
        yield (
            f"{other[0].file} is not what dvc.lock has, so the report's results are put on no "
            "version; `dvc repro` records it, `dvc checkout` brings back what was"
        )
        measured = None
    with connection.alone():
        mlflow = connection.client()
        at = connection.experiment(mlflow, name)
        versions: dict[str, str] = {}
        for one in weights:
            registered = f"atelier-{name}-{one.kind}"
            version, made = _version(mlflow, at, registered, one, profile)
            _link(mlflow, name, registered, version, versions)
            versions[one.painter] = version
            if measured and one.painter in measured.suites:
                _attach(mlflow, registered, version, measured.md5, measured.suites[one.painter])
            yield f"{one.painter} is {registered} version {version}{made}"
        _bring_code(mlflow, name)
        if measured:
            guard = profile.report.champion
            yield _crown(mlflow, f"atelier-{name}-theta", versions, measured, guard)


def _lock() -> dict[str, Any]:
    if not paths.DVC_LOCK.is_file():
        return {}
    content = yaml.safe_load(paths.DVC_LOCK.read_text(encoding="utf-8")) or {}
    return dict(content.get("stages", {}))


def _weights(lock: Mapping[str, Any]) -> Iterator[Weights]:
    """Yield the LoRAs that dvc.lock knows, as far as their bytes are here."""
    if not {"sft", "cpo"} & lock.keys():
        return
    with locked_outs.opened() as outs:
        places = [(THETA1, paths.SFT)] if "sft" in lock else []
        if "cpo" in lock and outs.isdir(str(paths.CPO)):
            found = sorted(Path(name).name for name in outs.ls(str(paths.CPO), detail=False))
            places += [(name, paths.CPO / name) for name in found]
        for painter, folder in places:
            for file in (folder / LORA, folder / FULL):
                if not outs.isfile(str(file)):
                    continue
                yield Weights(painter, str(outs.info(str(file))["md5"]), file)


def _lies_otherwise(one: Weights) -> bool:
    """Whether other weights lie here than dvc.lock has, as after a stage was run by hand."""
    return one.file.is_file() and mlflow_runs.md5(one.file) != one.md5


def _measured(lock: Mapping[str, Any], evaluating: bool) -> Measured | None:
    """Return the report's results, if they are of the weights in dvc.lock."""
    file = paths.SUITES
    if not file.is_file() or not (evaluating or _fresh(lock, file)):
        return None
    content = file.read_bytes()
    suites = {
        painter: {name: float(value) for name, value in suite.items() if value is not None}
        for painter, suite in json.loads(content).items()
    }
    return Measured(_md5(content), suites)


def _fresh(lock: Mapping[str, Any], file: Path) -> bool:
    """Say whether ``file`` is what dvc.lock has, measured on the weights that it has."""
    made = {
        out["path"]: out["md5"] for name in ("sft", "cpo") for out in _rows(lock, name, "outs")
    }
    used = {dep["path"]: dep["md5"] for dep in _rows(lock, "report", "deps")}
    outs = {out["path"]: out["md5"] for out in _rows(lock, "report", "outs")}
    stale = any(made[path] != md5 for path, md5 in used.items() if path in made)
    return not stale and outs.get(file.as_posix()) == _md5(file.read_bytes())


def _rows(lock: Mapping[str, Any], stage: str, kind: str) -> list[dict[str, Any]]:
    return list(lock.get(stage, {}).get(kind, []))


def _link(
    mlflow: "MlflowClient",
    profile: str,
    registered: str,
    version: str,
    known: Mapping[str, str],
) -> None:
    """Say from which θ1 a θ comes: ``tags.parent`` upwards, a search for it downwards."""
    if THETA1 not in known or registered.endswith(THETA1):
        return
    parent = f"atelier-{profile}-{THETA1}/{known[THETA1]}"
    # The same weights have the same θ1, unless a person pulled one without the other.
    if "parent" not in mlflow.get_model_version(registered, version).tags:
        mlflow.set_model_version_tag(registered, version, "parent", parent)


def _version(
    mlflow: "MlflowClient", at: str, registered: str, one: Weights, profile: Profile
) -> tuple[str, str]:
    """Return the version with these weights, made if need be, and a word on which it was."""
    from mlflow.exceptions import MlflowException

    known = _sole_version(mlflow, registered, one)
    if known is not None:
        return known, ""
    try:
        mlflow.create_registered_model(registered)
    except MlflowException:
        mlflow.get_registered_model(registered)  # it is there; anything else raises again
    model, source = _log_model(mlflow, at, one, profile)
    made = mlflow.create_model_version(
        registered,
        source=f"models:/{model}",
        run_id=source,
        model_id=model,
        tags=_tags(one)
        | ({"sampled_without_guidance": "true"} if _unguided(one, profile) else {})
        | mlflow_runs.provenance()
        | _base(profile)
        | _code(),
    )
    return _sole_version(mlflow, registered, one) or str(made.version), ", new"


def _sole_version(mlflow: "MlflowClient", registered: str, one: Weights) -> str | None:
    """Return the version with these weights; delete others, made where an answer was lost."""
    key = f"name = '{registered}' and tags.`dvc.md5` = '{one.md5}'"
    found = sorted(
        (
            version
            for version in mlflow.search_model_versions(key)
            if version.tags.get("painter") == one.painter
        ),
        key=lambda version: int(version.version),
    )
    for double in found[1:]:
        mlflow.delete_model_version(registered, double.version)
    return str(found[0].version) if found else None


def _log_model(
    mlflow: "MlflowClient", at: str, one: Weights, profile: Profile
) -> tuple[str, str]:
    """Log the weights as a model that paints; return its id and the run it comes from."""
    source = _source_run(mlflow, at, one)
    model = _sole_model(mlflow, at, one)
    if model is None:
        made = mlflow.create_logged_model(
            at,
            name=one.painter,
            source_run_id=source,
            tags=_tags(one),
            params=mlflow_runs.flat(settings.of(one.painter, profile)),
            model_type="full" if one.file.name == FULL else "lora",
        )
        model = _sole_model(mlflow, at, one) or str(made.model_id)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about classes of its own
        saved = Path(folder) / "model"
        _save(saved, one, profile)
        mlflow.log_model_artifacts(model, str(saved))
    mlflow.finalize_logged_model(model, "READY")
    return model, source


def _sole_model(mlflow: "MlflowClient", at: str, one: Weights) -> str | None:
    """Return the model with these weights, whole or not yet; delete others like it."""
    found = [
        model
        for model in mlflow.search_logged_models([at], f"tags.`dvc.md5` = '{one.md5}'")
        if model.tags.get("painter") == one.painter
    ]
    found.sort(key=lambda model: (model.creation_timestamp, model.model_id))
    for double in found[1:]:
        mlflow.delete_logged_model(double.model_id)
    return str(found[0].model_id) if found else None


def _save(folder: Path, one: Weights, profile: Profile) -> None:
    """Write the folder that ``mlflow.pyfunc.load_model`` reads."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    sampled = profile.generate
    guidance = 1.0 if _unguided(one, profile) else sampled.guidance
    with tempfile.TemporaryDirectory() as lora:
        with locked_outs.opened() as outs:
            beside = [one.file.with_name("config.json")] if one.file.name == FULL else []
            for file in (one.file, *beside):
                outs.get_file(str(file), str(Path(lora) / file.name))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_CODE),
            artifacts={"lora": lora},
            model_config={
                "root": str(Path.cwd()),
                "model": profile.model.model_dump(),
                "steps": sampled.steps,
                "guidance": guidance,
                "distilled_guidance": sampled.distilled_guidance,
                "sampled_without_guidance": _unguided(one, profile),
                "batch_images": sampled.batch_images,
            },
            input_example=pd.DataFrame({"prompt": ["a landscape in blue"], "seed": [1]}),
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "prompt"), ColSpec("long", "seed")]),
                outputs=Schema([ColSpec("string", "image")]),
                params=ParamSchema(
                    [
                        ParamSpec("steps", "long", sampled.steps),
                        ParamSpec("guidance", "double", guidance),
                    ]
                ),
            ),
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS
            ],
        )


def _source_run(mlflow: "MlflowClient", at: str, one: Weights) -> str:
    """Return the stage's run that wrote these weights, or one that says they came by DVC."""
    tag = mlflow_runs.product(one.file)
    found = mlflow.search_runs([at], f"tags.`{tag}` = '{one.md5}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = sync.made_once(
        mlflow,
        at,
        (_FROM_DVC, f"{one.painter} {one.md5}"),
        name=f"{one.painter} (from DVC)",
        tags=mlflow_runs.provenance() | _tags(one) | {"mlflow.source.name": "dvc pull"},
        started=time.time_ns() // 1_000_000,
    )
    mlflow.set_terminated(run)
    return run


def _unguided(one: Weights, profile: Profile) -> bool:
    """Whether these weights learned what guidance adds, and are sampled without."""
    objective = profile.cpo.objectives.get(one.painter)
    return objective is not None and objective.sampled_without_guidance()


def _base(profile: Profile) -> dict[str, str]:
    """Return tags that say on which base the weights lie, and under which licence it is."""
    from atelier.reports import model_card

    model = profile.model
    name = public_name(model)
    tags = {"base": f"{name}@{model.revision}" if model.revision else name}
    return tags | {"licence": model_card.licence(model)}


def _tags(one: Weights) -> dict[str, str]:
    return {"dvc.md5": one.md5, "dvc.path": one.file.as_posix(), "painter": one.painter}


def _code() -> dict[str, str]:
    return {"code.md5": _md5(_CODE.read_bytes())}


def _bring_code(mlflow: "MlflowClient", profile: str) -> None:
    """Give all versions of a profile the code that loads them as it is today.

    The library that it calls is today's, too: code of earlier days would refuse what a version
    of earlier days does not say of settings that came later.
    """
    now = _code()
    for version in mlflow.search_model_versions(f"name LIKE 'atelier-{profile}-%'"):
        if now.items() <= version.tags.items():
            continue
        model = version.source.removeprefix("models:/")
        files = {one.path for one in mlflow.list_logged_model_artifacts(model)}
        if _CODE.name in files:
            mlflow.log_model_artifact(model, str(_CODE))
        for tag, md5 in now.items():
            mlflow.set_model_version_tag(version.name, version.version, tag, md5)


def _attach(
    mlflow: "MlflowClient", registered: str, version: str, md5: str, suite: Mapping[str, float]
) -> None:
    """Put the metric suite on the model, and its headlines on the version's tags, once."""
    known = mlflow.get_model_version(registered, version)
    model = known.source.removeprefix("models:/")  # the SQL store forgets its model_id
    headline = f"{known.tags['painter']}: #A_neg {suite['negatives']:.2f}"
    if "captions" in suite:
        ends = f"[{suite['negatives_low']:.2f}, {suite['negatives_high']:.2f}]"
        headline += f" {ends} over {suite['captions']} captions"
    if "fid" in suite:
        headline += f", FID {suite['fid']:.2f}"
    if _put_card(mlflow, registered, version, model, known.tags):
        headline += f". Its model card is {_CARD} among the artifacts of models:/{model}"
    if known.description != headline:
        mlflow.update_model_version(registered, version, description=headline)
    for tag, text in _certificate().items():
        if known.tags.get(tag) != text:
            mlflow.set_model_version_tag(registered, version, tag, text)
    if known.tags.get("evaluation.md5") == md5:
        return
    for name, value in suite.items():
        mlflow.log_metric(known.run_id, name, value, model_id=model)
        mlflow.set_model_version_tag(registered, version, name, f"{value:.4g}")
    _say_what_is_absent(mlflow, registered, version)
    mlflow.set_model_version_tag(registered, version, "evaluation.md5", md5)


def _put_card(
    mlflow: "MlflowClient", registered: str, version: str, model: str, tags: Mapping[str, str]
) -> bool:
    """Write the model card next to the weights, unless it is there; say whether there is one.

    It has a tag of its own: a clone may have pulled the numbers first and the cards later.
    """
    file = paths.CARDS / tags["painter"] / _CARD
    if not file.is_file():
        return "card.md5" in tags
    md5 = _md5(file.read_bytes())
    if tags.get("card.md5") != md5:
        mlflow.log_model_artifacts(model, str(file.parent))
        mlflow.set_model_version_tag(registered, version, "card.md5", md5)
    return True


def _certificate() -> dict[str, str]:
    """Tags: the certificate of the report's annotator, and the criteria that fail a control."""
    if not paths.CERTIFIED.is_file():
        return {}
    said = json.loads(paths.CERTIFIED.read_text(encoding="utf-8"))
    if said["version"] is None:
        return {"certificate": "none"}
    failing = ", ".join(sorted(said["failing"])) or "none"
    return {"certificate": said["version"], "certificate.failing": failing[:_LONGEST_TAG]}


def _say_what_is_absent(mlflow: "MlflowClient", registered: str, version: str) -> None:
    """Say which metrics could not be measured."""
    if entries := _suite():
        absent = [name for name, entry in entries.items() if not entry["available"]]
        value = f"{', '.join(absent)}: atelier weights --fetch" if absent else "none"
        mlflow.set_model_version_tag(registered, version, "unavailable", value)


def _crown(
    mlflow: "MlflowClient",
    registered: str,
    versions: Mapping[str, str],
    measured: Measured,
    guard: ChampionGuard,
) -> str:
    """Move the alias ``champion`` to where the rule wants it; say where, or why nowhere."""
    thetas = [name for name in versions if name != THETA1]
    fit = [name for name in thetas if measured.passes(name, guard)]
    if not fit:
        mlflow.delete_registered_model_alias(registered, CHAMPION)
        compared = [name for name in thetas if measured.has(name, guard)]
        if compared and measured.has(BASE, guard):
            said = _label(guard)
            return f"no θ has a {said} at least as good as the base's: there is no champion"
        return _unmeasured(guard, measured)
    best = min(fit, key=lambda name: measured.suites[name]["negatives"])
    mlflow.set_registered_model_alias(registered, CHAMPION, versions[best])
    return f"{CHAMPION} of {registered} is version {versions[best]} ({best})"


def _unmeasured(guard: ChampionGuard, measured: Measured) -> str:
    """Say that the guard was not measured, how it would be, and what was measured instead."""
    suite = _suite()
    if guard == "second_judge":
        how = "set evaluate.second_judge"
    elif guard not in suite:
        how = f"name {guard} in evaluate.metrics"
    else:
        absent = suite[guard]["unavailable"]
        how = absent or "more pictures are needed (generate.prompts, the test part)"
    others = [one for one in get_args(ChampionGuard) if measured.has(BASE, one)]
    instead = f", or let report.champion be {' or '.join(others)}" if others else ""
    return (
        f"there is no champion, because {_label(guard)} was not measured, in which a θ is "
        f"compared with the base: {how}{instead}"
    )


def _column(guard: str) -> str:
    """Name of a guard's number in the suites."""
    return "negatives_independent" if guard == "second_judge" else guard


def _label(guard: str) -> str:
    if guard == "second_judge":
        return "#A_neg by the second judge"
    entry = _suite().get(guard)
    return str(entry["label"]) if entry else guard.upper()


def _suite() -> dict[str, Any]:
    """What was to be measured, and what was; of older evaluations nothing is known."""
    if not paths.SUITE.is_file():
        return {}
    found: dict[str, Any] = json.loads(paths.SUITE.read_text(encoding="utf-8"))
    return found


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
