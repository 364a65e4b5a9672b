"""What the Prefect server must know: pools, limits, the watch over dead runs, deployments."""

import importlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect import serve as serve_all
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule

from flows import gpus

PREFECT_YAML = Path("prefect.yaml")
POOLS = ("cpu", "gpu")  # where a stage goes on several machines: by its meta.gpu
WATCH = "atelier: a run without a heartbeat is dead"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
# Three heartbeats of 30 s, which prefect.yaml asks of the runs that it describes.
_SILENCE = timedelta(seconds=90)


def setup() -> Iterator[str]:
    """Create what is not there yet; yield a line for each thing."""
    for pool in POOLS:
        yield f"work pool {pool}: {_ensure_pool(pool)}"
    yield f"limit {gpus.ensure_limit()}: a slot for each of {len(gpus.devices())} device(s)"
    yield f"automation “{WATCH}”: {_ensure_watch()}"


def missing() -> list[str]:
    """Return what ``setup`` would create."""
    with get_client(sync_client=True) as client:
        pools = {pool.name for pool in client.read_work_pools()}
        absent = [f"work pool {pool}" for pool in POOLS if pool not in pools]
        watched = client.read_automations_by_name(WATCH)
    return absent if watched else [*absent, "the watch over dead runs"]


def serve() -> None:
    """Run the deployments of prefect.yaml from this process, until it is stopped."""
    list(setup())
    serve_all(*(_deployment(content) for content in deployments()))


def deployments() -> list[dict[str, Any]]:
    """Return what prefect.yaml says of each deployment."""
    content = yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))
    return list(content["deployments"])


def _deployment(content: dict[str, Any]) -> RunnerDeployment:
    module, _, name = content["entrypoint"].partition(":")
    found = getattr(importlib.import_module(module), name)
    made: RunnerDeployment = found.to_deployment(
        content["name"],
        description=content["description"],
        tags=content["tags"],
        parameters=content.get("parameters", {}),
        schedules=[Schedule(**schedule) for schedule in content.get("schedules", [])],
        concurrency_limit=content.get("concurrency_limit"),
    )
    made.entrypoint = content["entrypoint"]
    return made


def _ensure_pool(name: str) -> str:
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            return "created, for processes"
        return f"is there, of type {pool.type}"


def _ensure_watch() -> str:
    """Mark runs as crashed whose process was killed without a chance to say so."""
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(WATCH):
            return "is there"
    Automation(
        name=WATCH,
        description="Nobody else would: a killed process says nothing, and its run stays "
        "“Running” for ever. A crashed stage on a worker is taken up again.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={_HEARTBEAT},
            expect={_HEARTBEAT} | {f"prefect.flow-run.{end}" for end in _ENDS},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=_SILENCE,
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat for 90 seconds")
        ],
    ).create()
    return "created"
