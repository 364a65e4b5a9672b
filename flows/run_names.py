"""Names of flow runs: what differs and who asked; a name that a person typed is kept."""

import re
from collections.abc import Iterable
from typing import Any

from prefect import runtime
from prefect.client.schemas.objects import FlowRun

from atelier.config.profile import read_switch
from flows.dvc import overrides
from flows.dvc.overrides import AS_WRITTEN, Changes
from tasks.run import paths
from tasks.tracking import run_names

# What the form of Prefect's pages proposes, as ``omega2`` or ``kappa5-bopak-void``; a person
# may type such a name, too.
_PROPOSED = re.compile(
    "(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho"
    r"|sigma|tau|upsilon|phi|chi|psi|omega)\d*(-[a-z-]+)?"
)


def of_run() -> str:
    """Return the name of the flow run that begins, for ``flow_run_name`` of a flow."""
    given = str(runtime.flow_run.name or "")
    if not given or is_made_up(given):
        return _described()
    return f"{_described()} · {given}" if _PROPOSED.fullmatch(given) else given


def _described() -> str:
    parameters = runtime.flow_run.parameters
    changes = Changes.model_validate(parameters.get("changes") or AS_WRITTEN)
    flow = str(runtime.flow_run.flow_name)
    targets = ", ".join(parameters.get("targets") or [])
    what = targets or ("all stages" if flow == "reproduce" else flow)
    if flow == "compare":
        what = f"{parameters['second']} against {parameters['first']}"
    if flow == "sweep":
        what = f"sweep of {', '.join(parameters['settings'])}"
    if flow == "study":
        what = f"study {parameters['name']}"
    about = ", ".join(filter(None, [what, overrides.described(changes)]))
    return run_names.of(read_switch(paths.SWITCH), about, _asked_by())


def is_made_up(name: str) -> bool:
    """Say whether Prefect made a name of an adjective and an animal, as ``amber-otter``."""
    words = name.split("-")
    return len(words) == 2 and set(words) <= _words()


def _words() -> set[str]:
    from coolname import data  # Prefect takes its names from it

    lists: Iterable[Any] = data.config.values()
    return {word for one in lists if one["type"] == "words" for word in one["words"]}


def _asked_by() -> str | None:
    """Return who asked: the schedule, a person in the pages, or the user of this machine."""
    run = _current()
    if run is None or run.deployment_id is None:
        return None
    if run.auto_scheduled:
        return "the schedule"
    by = run.created_by
    return str(by.display_value) if by and by.display_value else "the pages"


def _current() -> FlowRun | None:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        return context.flow_run
    ident = runtime.flow_run.id
    if ident is None:
        return None
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(ident)
