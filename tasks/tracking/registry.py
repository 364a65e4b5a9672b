"""MLflow model registry, kept in agreement with dvc.lock: ``atelier registry``.

A stage that DVC skips, restores or pulls does not run, so the stages do not write the registry;
it is reconciled with dvc.lock, any number of times:

* θ1 is a version of ``atelier-<profile>-theta1``, each θ one of ``atelier-<profile>-theta``,
  known by the md5 that DVC gives the LoRA: the same weights are the same version;
* a version's bytes come from DVC's cache, and its source is the run that wrote them;
* what the report says is attached to the version (``version_pages``), provided that it was
  measured on these very weights;
* the alias ``champion`` follows by the rule of ``champion``; where the present one was measured
  on other captions it stays, and ``atelier compare champion theta/N --crown`` compares the two;
* what a run with changed settings made is registered with the tag ``experiment``, and no alias
  moves to it.
"""

import dataclasses
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from atelier.config.model import ModelParams, public_name, recorded_model
from atelier.config.profile import Profile, read_in_force, read_profile, read_switch
from atelier.errors import ArtifactError
from tasks.run import locked_outs, paths
from tasks.tracking import (
    champion,
    connection,
    main_repository,
    measured,
    mlflow_runs,
    saved_model,
    sync,
    version_pages,
)
from tasks.training import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

LORA = "pytorch_lora_weights.safetensors"
FULL = saved_model.FULL
THETA1 = measured.THETA1
CHAMPION = champion.ALIAS
_FROM_DVC = "atelier.from-dvc"  # the tag of a run that stands for weights that were pulled


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
        base, root = recorded_model(config["model"], address), Path(config.get("root", ""))
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
            return version.tags[version_pages.OBJECTIVE], version.tags[version_pages.MD5]
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
    found = measured.read(lock, read_in_force(paths.PARAMS))
    if found is None:
        return {}
    return {one.painter: one.md5 for one in _weights(lock) if one.painter in found.suites}


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
            key = f"tags.`{version_pages.MD5}` = '{weights}'"
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
    found = measured.read(lock, profile, evaluating=evaluating)
    experiment = main_repository.experiment()
    if found and (other := [one for one in weights if _lies_otherwise(one)]):
        yield (
            f"{other[0].file} is not what dvc.lock has, so the report's results are put on no "
            "version; `dvc repro` records it, `dvc checkout` brings back what was"
        )
        found = None
    with connection.alone():
        mlflow = connection.client()
        at = connection.experiment(mlflow, name)
        version_pages.bring_up_to_date(mlflow, name)
        versions: dict[str, str] = {}
        for one in weights:
            registered = f"atelier-{name}-{one.kind}"
            version, made = _version(mlflow, at, registered, one, profile)
            _link(mlflow, name, registered, version, versions)
            versions[one.painter] = version
            ours = _claimed(mlflow, registered, version, experiment, new=bool(made))
            if ours and found and one.painter in found.suites:
                suite = found.suites[one.painter]
                version_pages.attach(mlflow, registered, version, found, suite)
            yield f"{one.painter} is {registered} version {version}{made}"
        _bring_code(mlflow, name)
        if experiment is not None:
            yield f"no alias moves to what the experiment {experiment} made"
        elif found:
            registered = f"atelier-{name}-theta"
            yield champion.crown(mlflow, registered, versions, found)
            champion.mark(mlflow, at, registered)


def _claimed(
    mlflow: "MlflowClient", registered: str, version: str, experiment: str | None, *, new: bool
) -> bool:
    """Tag what an experiment alone has made; say whether what was measured now belongs to it.

    The numbers of a version of dvc.lock are not replaced by those of an experiment, which may
    have painted other captions.
    """
    if experiment is not None and new:
        mlflow.set_model_version_tag(registered, version, version_pages.EXPERIMENT, experiment)
        return True
    of = mlflow.get_model_version(registered, version).tags.get(version_pages.EXPERIMENT)
    if experiment is None and of is not None:  # `dvc exp apply` took it over
        mlflow.delete_model_version_tag(registered, version, version_pages.EXPERIMENT)
    return experiment is None or of is not None


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


def _link(
    mlflow: "MlflowClient",
    profile: str,
    registered: str,
    version: str,
    known: Mapping[str, str],
) -> None:
    """Say from which θ1 a θ comes: a tag upwards, a search for it downwards."""
    if THETA1 not in known or registered.endswith(THETA1):
        return
    parent = f"atelier-{profile}-{THETA1}/{known[THETA1]}"
    # The same weights have the same θ1, unless a person pulled one without the other.
    if version_pages.PARENT not in mlflow.get_model_version(registered, version).tags:
        mlflow.set_model_version_tag(registered, version, version_pages.PARENT, parent)


def _version(
    mlflow: "MlflowClient", at: str, registered: str, one: Weights, profile: Profile
) -> tuple[str, str]:
    """Return the version with these weights, made if need be, and a word on which it was."""
    from mlflow.exceptions import MlflowException

    known = _sole_version(mlflow, registered, one)
    if known is not None:
        return known, ""
    try:
        mlflow.create_registered_model(registered, description=_about(registered))
    except MlflowException:
        mlflow.get_registered_model(registered)  # it is there; anything else raises again
    model, source = _log_model(mlflow, at, one, profile)
    unguided = saved_model.unguided(one.painter, profile)
    made = mlflow.create_model_version(
        registered,
        source=f"models:/{model}",
        run_id=source,
        model_id=model,
        tags={
            version_pages.OBJECTIVE: one.painter,
            version_pages.MD5: one.md5,
            version_pages.PATH: one.file.as_posix(),
        }
        | ({"sampled_without_guidance": "true"} if unguided else {})
        | _code(),
    )
    return _sole_version(mlflow, registered, one) or str(made.version), ", new"


def _sole_version(mlflow: "MlflowClient", registered: str, one: Weights) -> str | None:
    """Return the version with these weights; delete others, made where an answer was lost."""
    key = f"name = '{registered}' and tags.`{version_pages.MD5}` = '{one.md5}'"
    found = sorted(
        (
            version
            for version in mlflow.search_model_versions(key)
            if version.tags.get(version_pages.OBJECTIVE) == one.painter
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
            tags=_tags(one) | _base(profile),
            params=mlflow_runs.flat(settings.of(one.painter, profile)),
            model_type="full" if one.file.name == FULL else "lora",
        )
        model = _sole_model(mlflow, at, one) or str(made.model_id)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, about classes of its own
        saved = Path(folder) / "model"
        saved_model.write(saved, one.painter, one.file, profile)
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


def _base(profile: Profile) -> dict[str, str]:
    """Return tags that say on which base the weights lie, and under which licence it is."""
    from atelier.reports import model_card

    model = profile.model
    name = public_name(model)
    tags = {"base": f"{name}@{model.revision}" if model.revision else name}
    return tags | {"licence": model_card.licence(model)}


def _tags(one: Weights) -> dict[str, str]:
    return {"dvc.md5": one.md5, "dvc.path": one.file.as_posix(), "painter": one.painter}


def _about(registered: str) -> str:
    """Return what a registered model is; its versions are what MLflow compares in one page."""
    if registered.endswith(THETA1):
        return "θ1 of this profile: the base after SFT, a version for each training."
    return (
        "θ of this profile: a version for each objective that was trained with other results. "
        "All objectives are in one model, because MLflow compares the versions of one model. "
        f"`{CHAMPION}` has the fewest negatives of those no worse than the base in "
        "`report.champion`; `serving` was found better by `atelier compare`."
    )


def _code() -> dict[str, str]:
    return {version_pages.CODE: measured.md5(saved_model.CODE.read_bytes())}


def _bring_code(mlflow: "MlflowClient", profile: str) -> None:
    """Give all versions of a profile the code that loads them as it is today.

    The library that it calls is today's, too: code of earlier days would refuse what a version
    of earlier days does not say of settings that came later. Versions that hold the library
    themselves stay as they are.
    """
    now = _code()
    for version in mlflow.search_model_versions(f"name LIKE 'atelier-{profile}-%'"):
        if now.items() <= version.tags.items():
            continue
        model = version.source.removeprefix("models:/")
        files = {one.path for one in mlflow.list_logged_model_artifacts(model)}
        if saved_model.CODE.name in files and saved_model.LIBRARY not in files:
            mlflow.log_model_artifact(model, str(saved_model.CODE))
        for tag, md5 in now.items():
            mlflow.set_model_version_tag(version.name, version.version, tag, md5)


def challenger(profile: str) -> str | None:
    """Return the θ of dvc.lock that should be compared with the champion, if there is one.

    It is the best by the report, it is not the champion, and it is not known to be worse: other
    captions were painted, or other judges asked, when the champion was measured.
    """
    lock = _lock()
    found = measured.read(lock, read_profile(paths.profile(profile)))
    best = measured.best([one.painter for one in _weights(lock)], found)
    if found is None or best is None:
        return None
    (one,) = (weights for weights in _weights(lock) if weights.painter == best)
    registered = f"atelier-{profile}-theta"
    with connection.alone():
        mlflow = connection.client()
        version = _sole_version(mlflow, registered, one)
        present = champion.of(mlflow, registered)
    if version is None or present is None or str(present.version) == version:
        return None
    same = present.tags.get(version_pages.CAPTIONS) == found.captions
    return None if same else f"models:/{registered}/{version}"
