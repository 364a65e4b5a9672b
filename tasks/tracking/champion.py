"""Champion: the alias of the best θ, which only a comparison on the same captions moves.

The θ of dvc.lock with the lowest #A_neg among those that are no worse than the base in what
``report.champion`` names takes the alias, if it has fewer negatives than the present champion
on the same captions, noise and judge. The models of one report are compared by that report.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.tracking import measured as results
from tasks.tracking import version_pages
from tasks.tracking.measured import Measured

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "champion"


def of(mlflow: "MlflowClient", registered: str) -> Any:
    """Return the version with the alias ``champion``; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version_by_alias(registered, ALIAS)
    except MlflowException:
        return None


def crown(
    mlflow: "MlflowClient", registered: str, versions: Mapping[str, str], measured: Measured
) -> str:
    """Move the alias ``champion`` if the rule of this module says so; say where it is."""
    best, present = results.best(versions, measured), of(mlflow, registered)
    number = None if present is None else str(present.version)
    painter = next((name for name, version in versions.items() if version == number), None)
    if painter is not None and not measured.passes(painter):
        mlflow.delete_registered_model_alias(registered, ALIAS)
        present = None
    if best is None:
        end = "there is no champion" if present is None else f"{ALIAS} stays version {number}"
        return f"{end}, because {_why_none(versions, measured)}"
    if (
        present is not None
        and painter is None
        and (why := _stays(mlflow, present, best, measured))
    ):
        return f"{ALIAS} of {registered} stays version {number}: " + why.format(
            best=best, version=versions[best]
        )
    mlflow.set_registered_model_alias(registered, ALIAS, versions[best])
    return f"{ALIAS} of {registered} is version {versions[best]} ({best})"


def _why_none(versions: Mapping[str, str], measured: Measured) -> str:
    """Return why no θ of dvc.lock may be champion."""
    thetas = [name for name in versions if name != results.THETA1]
    if measured.has(results.BASE) and any(map(measured.has, thetas)):
        said = results.label(measured.guard)
        return f"no θ has a {said} at least as good as the base's"
    return results.unmeasured(measured)


def _stays(mlflow: "MlflowClient", present: Any, best: str, measured: Measured) -> str | None:
    """Return why the present champion stays, which is not among what was measured now."""
    if present.tags.get(version_pages.CAPTIONS) != measured.captions:
        return (
            "it was measured on other captions, noise or judges than version {version} ({best}"
            "); `atelier compare " + ALIAS + " theta/{version} --crown` compares them"
        )
    model = mlflow.get_logged_model(present.source.removeprefix("models:/"))
    numbers = {metric.key: metric.value for metric in model.metrics or []}
    if numbers.get("negatives", float("inf")) <= measured.suites[best]["negatives"]:
        return "version {version} ({best}) has no fewer negatives on the same captions"
    return None


def mark(mlflow: "MlflowClient", experiment: str, registered: str) -> None:
    """Tag the pipeline's run from which the champion comes, and no other one."""
    present = of(mlflow, registered)
    run = None if present is None else _pipeline_of(mlflow, present.run_id)
    marked = mlflow.search_runs([experiment], f"tags.`{ALIAS}` != ''")
    for other in marked:
        if other.info.run_id != run:
            mlflow.delete_tag(other.info.run_id, ALIAS)
    if present is not None and run is not None:
        painter = present.tags.get(version_pages.OBJECTIVE, "θ")
        mlflow.set_tag(run, ALIAS, f"{painter} v{present.version}")


def _pipeline_of(mlflow: "MlflowClient", run: str | None) -> str | None:
    """Return the run at the top of those that a model's source run lies below."""
    while run is not None:
        above = mlflow.get_run(run).data.tags.get("mlflow.parentRunId")
        if above is None:
            return run
        run = str(above)
    return None
