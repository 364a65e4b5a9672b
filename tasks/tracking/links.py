"""Links into MLflow's pages: runs of a profile, one run, a model, versions side by side.

MLflow opens on a page about chats with language models, three clicks away from any training.
"""

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from atelier.config.profile import read_switch
from tasks.run import paths
from tasks.tracking import connection

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_HERE = "http://127.0.0.1:5000"  # where `connection.ui_command` opens the pages on a file
_VIEW = "atelier"  # the view of an experiment's runs that its link opens
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"
_COLUMNS = ("metrics.`A_neg`", "metrics.`FID`", "tags.`changed`", "tags.`champion`")


def base() -> str:
    """Return the address of MLflow's pages; without a server, where `mlflow ui` serves them."""
    uri = connection.tracking_uri()
    return connection.without_password(uri).rstrip("/") if uri.startswith("http") else _HERE


def runs(experiment: str) -> str:
    """Return the list of an experiment's runs, with #A_neg, FID, what changed, and champion."""
    return f"{base()}/#/experiments/{experiment}/runs?viewStateShareKey={_VIEW}"


def run(experiment: str, ident: str, file: str | None = None) -> str:
    """Return the page of a run, or of a file that it logged."""
    page = f"{base()}/#/experiments/{experiment}/runs/{ident}"
    return f"{page}/artifacts/{file}" if file else page


def model(registered: str, version: str | None = None) -> str:
    """Return the page of a registered model, or of one of its versions."""
    page = f"{base()}/#/models/{quote(registered, safe='')}"
    return f"{page}/versions/{version}" if version else page


def comparison(registered: str, sources: dict[str, str]) -> str:
    """Return the page that compares versions of a model, by their source runs.

    Args:
        registered: The model's name.
        sources: Ids of the runs that the versions come from, by the versions' numbers.
    """
    name, pairs = json.dumps(quote(registered, safe="")), json.dumps(sources)
    return f"{base()}/#/compare-model-versions?name={quote(name)}&runs={quote(pairs)}"


def prepare(mlflow: "MlflowClient", experiment: str) -> None:
    """Give an experiment the view that ``runs`` opens, once."""
    known = mlflow.get_experiment(experiment).tags
    state = json.dumps(
        {
            "selectedColumns": [*_COLUMNS],
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "searchFilter": "tags.`atelier.pipeline` != ''",
        }
    )
    if known.get(_VIEW_TAG) != state:
        mlflow.set_experiment_tag(experiment, _VIEW_TAG, state)


def lines() -> list[str]:
    """Return the pages of the profile in force as lines to print; none where MLflow is away."""
    if not connection.has_runs():
        return []
    try:
        pages = of_profile(read_switch(paths.SWITCH))
    except Exception as error:  # links are no reason to fail
        _log.warning("MLflow did not answer, so there are no links: %s", error)
        return []
    return [f"{what:11} {page}" for what, page in pages.items()]


def of_profile(profile: str) -> dict[str, str]:
    """Return the pages of a profile's runs and models, by what they show; MLflow is asked."""
    with connection.alone():
        mlflow = connection.client()
        found = mlflow.get_experiment_by_name(f"atelier-{profile}")
        pages = {}
        if found is not None:
            prepare(
                mlflow, str(found.experiment_id)
            )  # runs are copied to servers, views are not
            pages["runs"] = runs(str(found.experiment_id))
        registered = f"atelier-{profile}-theta"
        versions = {
            str(one.version): str(one.run_id)
            for one in mlflow.search_model_versions(f"name = '{registered}'", max_results=5)
        }
    if versions:
        pages["models"] = model(registered)
    if len(versions) > 1:
        pages["comparison"] = comparison(registered, versions)
    return pages
