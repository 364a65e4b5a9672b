"""Prefect set-up: pools, limits, the automation for dead runs, deployments."""

import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect import serve as serve_all
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule
from prefect.settings import PREFECT_API_URL

from atelier import atomic
from atelier.config.profile import read_switch
from atelier.errors import ParamsError
from flows.infra import clone, gpus
from tasks.run import paths

PREFECT_YAML = Path("prefect.yaml")
_FORMS = Path(".dvc/tmp/atelier/forms")  # the profile that the forms show
# Deployments run in the clone that deployed them, by its own pool. On several machines, stages
# go to these pools by their meta.gpu; from one pool a run could get its own stage, and wait for
# itself.
SHARED_POOLS = ("cpu", "gpu")
_FORMER = "here"  # the pool and name of all deployments of all clones, formerly
WATCH = "atelier: a run without a heartbeat is dead"
START_WATCH = "atelier: a run that does not begin is dead"
TAG = "atelier"  # of every deployment of prefect.yaml, and so of its runs
_HEARTBEAT = "prefect.flow-run.heartbeat"
_BEGUN = ("Running", "InfrastructurePending", "AwaitingConcurrencySlot", "AwaitingRetry")
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
# Three heartbeats of 30 s, which prefect.yaml asks of the runs that it describes.
_SILENCE = timedelta(seconds=90)
# From a worker's taking a run to its first event: imports, on a busy machine.
_START = timedelta(minutes=5)


def pools() -> tuple[str, ...]:
    """Return the pools that this clone uses."""
    return (clone.pool(), *SHARED_POOLS)


def setup() -> Iterator[str]:
    """Create what is not there yet; yield a line for each thing."""
    for pool in pools():
        yield f"work pool {pool}: {_ensure_pool(pool)}"
    yield f"limit {gpus.ensure_limit()}: a slot for each of {len(gpus.devices())} device(s)"
    for name, trigger, message in _watches():
        yield f"automation “{name}”: {_ensure_watch(name, trigger, message)}"


def deploy() -> Iterator[str]:
    """Register the deployments of prefect.yaml on the server; yield a line.

    Raises:
        ParamsError: Prefect refused them.
    """
    words = ["-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {clone.POOL: clone.pool()} | _server(),
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-1500:]
        raise ParamsError(f"`{' '.join(words[1:])}` failed:\n{said}")
    yield "the deployments of prefect.yaml are registered"
    removed = _remove_former()
    if removed:
        yield f"{removed} deployments of the name {_FORMER} are removed: these replace them"


def _server() -> dict[str, str]:
    """Return the variable that names the server in force, which need not be the shell's."""
    address = PREFECT_API_URL.value()
    return {"PREFECT_API_URL": address} if address else {}


def _remove_former() -> int:
    """Remove our deployments that all clones shared; each clone has its own now."""
    with get_client(sync_client=True) as client:
        former = [
            one
            for one in client.read_deployments(limit=200)
            if one.name == _FORMER and TAG in one.tags
        ]
        for one in former:
            client.delete_deployment(one.id)
    return len(former)


def renew_forms() -> None:
    """Let the run forms show the profile in force, if it changed since a run looked last."""
    if not PREFECT_API_URL.value() or not PREFECT_YAML.is_file():
        return
    seen = hashlib.sha256(str(PREFECT_API_URL.value()).encode())
    for file in (paths.SWITCH, paths.profile(read_switch(paths.SWITCH))):
        seen.update(file.read_bytes())
    if _FORMS.is_file() and _FORMS.read_text(encoding="utf-8") == seen.hexdigest():
        return
    with get_client(sync_client=True) as client:
        known = {one.name: one for one in client.read_deployments(limit=200)}
        for content in deployments():
            form = _flow(content).parameters.model_dump()
            there = known.get(content["name"])
            if there is not None and there.parameter_openapi_schema != form:
                form_alone = DeploymentUpdate(parameter_openapi_schema=form)
                client.update_deployment(there.id, form_alone)
    atomic.write(_FORMS, seen.hexdigest())


def missing() -> list[str]:
    """Return what ``setup`` would create."""
    with get_client(sync_client=True) as client:
        known, wanted = {pool.name for pool in client.read_work_pools()}, pools()
        absent = [f"work pool {pool}" for pool in wanted if pool not in known]
        for name, _, _ in _watches():
            if not client.read_automations_by_name(name):
                absent.append(f"the automation “{name}”")
    return absent


def serve() -> None:
    """Run the deployments of prefect.yaml from this process, until it is stopped."""
    list(setup())
    serve_all(*(_deployment(content) for content in deployments()))


def deployments() -> list[dict[str, Any]]:
    """Return the deployments of prefect.yaml."""
    text = PREFECT_YAML.read_text(encoding="utf-8")
    content = yaml.safe_load(text.replace(f"{{{{ ${clone.POOL} }}}}", clone.pool()))
    return list(content["deployments"])


def _flow(content: dict[str, Any]) -> Any:
    module, _, name = content["entrypoint"].partition(":")
    return getattr(importlib.import_module(module), name)


def _deployment(content: dict[str, Any]) -> RunnerDeployment:
    made: RunnerDeployment = _flow(content).to_deployment(
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


def _watches() -> Iterator[tuple[str, EventTrigger, str]]:
    """Yield name, trigger and message of the automations that mark killed runs as crashed.

    A killed process sends no event, so its run would stay “Running” or “Pending” forever.
    """
    ends = {f"prefect.flow-run.{end}" for end in _ENDS}
    speaking = _silence({_HEARTBEAT}, {_HEARTBEAT} | ends, _SILENCE, related={})
    yield WATCH, speaking, f"no heartbeat for {_SILENCE.seconds} seconds"
    begun = {f"prefect.flow-run.{name}" for name in _BEGUN}
    # Other people's runs of the same server may take as long as they like to begin.
    ours = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    pending = {"prefect.flow-run.Pending"}
    taken = _silence(pending, {_HEARTBEAT} | begun | ends, _START, related=ours)
    yield START_WATCH, taken, f"taken by a worker, and not begun for {_START.seconds} seconds"


def _silence(
    after: set[str], expect: set[str], within: timedelta, *, related: dict[str, str]
) -> EventTrigger:
    """Return a trigger that fires if an expected event does not follow another one."""
    return EventTrigger(
        posture=Posture.Proactive,
        after=after,
        expect=expect,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(dict(related)),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=within,
    )


def _ensure_watch(name: str, trigger: EventTrigger, message: str) -> str:
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(name):
            return "is there"
    Automation(
        name=name,
        description="A crashed stage on a worker is taken up again.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    ).create()
    return "created"
