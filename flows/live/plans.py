"""Plans of runs in the run record: why each stage runs, and what became of it.

A flow writes its own plan. A plain ``dvc repro`` has none, so the live page's server looks
when it first sees the run.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import psutil
from pydantic_core import to_jsonable_python

from flows.dvc import plan, stages
from flows.dvc.plan import Prospect
from flows.dvc.stages import Stage
from tasks.run import paths
from tasks.tracking import main_repository, run_record, sync

ADDRESS = paths.LIVE / "address"  # of the server, while it runs
USUAL_PORT = 4300


def begin(run: str, order: Sequence[Stage], prospects: Mapping[str, Prospect]) -> None:
    """Note a flow's run: who runs it, and what would become of each stage."""
    from prefect import runtime

    run_record.begin(run, psutil.Process(), main_repository.found() or Path.cwd())
    run_record.note(
        run,
        process=sync.ident(psutil.Process()),  # a flow run that is retried has another one
        state=None,
        name=runtime.flow_run.name,
        flow_run=runtime.flow_run.id,
        deployment=runtime.deployment.id,
        # Among them is a model, `changes`.
        parameters=to_jsonable_python(
            runtime.flow_run.parameters if runtime.deployment.id else {}
        ),
        stages=described(order, prospects),
        copied=main_repository.found() is not None,  # works in a copy, with changed settings
    )


def described(
    order: Sequence[Stage], prospects: Mapping[str, Prospect]
) -> dict[str, dict[str, Any]]:
    """Return the stages with their needs and reasons, as the record has them.

    A need that another need has, too, is left out: a stage comes after it in any case.
    """
    graph = nx.DiGraph([(need, one.name) for one in order for need in one.needs])
    nearest = nx.transitive_reduction(graph)
    names = {one.name for one in order}
    return {
        one.name: {
            "about": one.about,
            "after": [
                need
                for need in one.needs
                if need in names and (need, one.name) in nearest.edges
            ],
            "verdict": prospects[one.name].verdict,
            "reasons": list(prospects[one.name].reasons),
            "gpu": one.meta.gpu,
        }
        for one in order
    }


def replan(run: str, prospect: Prospect) -> None:
    """Note what became clear about a stage when the stages before it had run."""
    file = run_record.folder(run) / run_record.RUN
    known = run_record.read(file).get("stages", {}).get(prospect.stage, {})
    now = {"verdict": prospect.verdict, "reasons": list(prospect.reasons)}
    run_record.note(run, stages={prospect.stage: known | now})


def outcome(run: str, stage: str, what: str) -> None:
    """Note what DVC did with a stage."""
    run_record.note(run, outcomes={stage: what})


def end(run: str, state: str) -> None:
    """Note that a run is over."""
    run_record.note(run, state=state, ended=time.time())


def look(run: str) -> None:
    """Note the plan of a run that DVC started alone, as it is now."""
    noted = run_record.read(run_record.folder(run) / run_record.RUN)
    if "stages" in noted or noted.get("folder") != str(Path.cwd()):
        return
    order = _asked(noted["command"])
    run_record.note(run, stages=described(order, plan.look(order)))


def _asked(command: Sequence[str]) -> list[Stage]:
    """Return the stages that the words of a ``dvc repro``, or of a stage alone, ask for."""
    known = stages.names()
    named = [word for word in command if word in known]
    alone = {"-s", "--single-item", "tasks"} & set(command)
    return stages.alone(*named) if named and alone else stages.read(named)


def address() -> str:
    """Return where the live pages are, or would be."""
    try:
        return ADDRESS.read_text(encoding="utf-8").strip()
    except OSError:
        return f"http://127.0.0.1:{USUAL_PORT}"


def link(run: str) -> str:
    """Return a line of Markdown that leads to a run's live page."""
    page = f"{address()}/runs/{run_record.folder(run).name}"
    known = ADDRESS.is_file()
    return f"[Live page of this run]({page})" + ("" if known else ", once `atelier live` runs")
