"""Flow ``nightly``: reproduce, compare ``champion`` with ``serving``, report."""

import json
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import compare, pipeline, run_names
from flows.dvc import stages
from flows.dvc.overrides import AS_WRITTEN
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
    made = pipeline.bring_up(stages.read(), force=False, wanted=AS_WRITTEN, where=where)
    if not made.is_completed():
        return made
    if not pipeline.has_champion():
        create_markdown_artifact(markdown=_report("There is no champion."), key="nightly")
        return Completed(name=made.name or "Completed", message="there is no champion")
    challenger = pipeline.challenger()
    if challenger is not None:
        compare.run("champion", challenger, slack=slack, promote=False, crown=True)
    compared = compare.run("serving", "champion", slack=slack, promote=promote)
    create_markdown_artifact(markdown=_report(str(compared.message)), key="nightly")
    return Completed(name=f"{made.name}, {compared.name}", message=compared.message)


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
