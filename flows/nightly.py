"""Flow ``nightly``: reproduce, compare ``champion`` with ``serving``, report."""

import json
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from flows import compare, nights, pipeline, run_names
from flows.dvc import stages
from flows.dvc.overrides import AS_WRITTEN
from flows.infra import notifications
from tasks.run import paths
from tasks.tracking import connection

_FIGURES = ("negatives", "negatives_low", "negatives_high", "fid")


@flow(flow_run_name=run_names.of_run, persist_result=False)
def nightly(slack: float, promote: bool, where: pipeline.Where = "here") -> State[Any]:
    """Bring all stages up to date, compare ``champion`` with ``serving``, and report.

    If the best θ of this night was measured on other captions than the champion, both generate
    this night's first, and the better one is champion.

    Args:
        slack: By which share the champion's FID may be worse than that of what serves.
        promote: Let the champion serve, if the rule of `compare` says so.
        where: On this machine, or on the workers of the pools `cpu` and `gpu`.
    """
    before = pipeline.champion()
    made = pipeline.bring_up(stages.read(), force=False, wanted=AS_WRITTEN, where=where)
    if not made.is_completed():
        return made
    challenger = pipeline.challenger()
    if challenger is not None:
        compare.run("champion", challenger, slack=slack, promote=False, crown=True)
    kept = nights.commit()
    after = pipeline.champion()
    found = nights.surprises((before, after), slack)
    if found:
        _emit(found)
    if after is None:
        verdict, name = "There is no champion.", str(made.name or "Completed")
    else:
        compared = compare.run("serving", "champion", slack=slack, promote=promote)
        verdict, name = str(compared.message), f"{made.name}, {compared.name}"
    surprising = [f"**Surprising**: {'; '.join(found)}."] if found else []
    text = _report("\n\n".join([verdict, *surprising, kept]))
    create_markdown_artifact(markdown=text, key="nightly")
    return Completed(name=name, message=verdict)


def _emit(found: list[str]) -> None:
    """Tell Prefect's server, which sends it to the address of `atelier notify`."""
    emit_event(
        event=notifications.SURPRISE,
        resource={
            "prefect.resource.id": f"atelier.night.{runtime.flow_run.id}",
            "prefect.resource.name": str(runtime.flow_run.name),
        },
        payload={"why": "; ".join(found), "page": str(runtime.flow_run.ui_url)},
    )


def _report(verdict: str) -> str:
    """Return the night's results as Markdown."""
    suites = json.loads(paths.SUITES.read_text(encoding="utf-8"))
    rows = [
        f"| {painter} | " + " | ".join(_number(suite.get(name)) for name in _FIGURES) + " |"
        for painter, suite in suites.items()
    ]
    return "\n".join(
        [
            "| painter | #A_neg | low | high | FID |",
            "|---|---|---|---|---|",
            *rows,
            "",
            verdict,
            "",
            f"Runs and models: `{connection.ui_command()}`",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
