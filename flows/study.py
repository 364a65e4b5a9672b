"""Flow ``study``: one Prefect task for each experiment of ``flows.dvc.study_runs``.

A task's state tells whether its experiment *Ran* or was run before (``RanBefore``). Cancelling
stops the training and leaves its checkpoint; the same parameters resume from there.
"""

from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from atelier.errors import AtelierError
from atelier.reports.study.results import Found
from flows import pipeline
from flows.dvc import stages
from flows.dvc import study_runs as grid
from flows.dvc.study_runs import Attempt
from flows.infra import gpus

# Prefect's pages offer the studies that params/ holds, and the server refuses any other.
Name = Annotated[str, Field(json_schema_extra={"enum": grid.names()})]


def _flow_run_name() -> str:
    return str(runtime.flow_run.parameters.get("name"))


@flow(flow_run_name=_flow_run_name, persist_result=False)
def study(name: Name = "study") -> State[Any]:
    """Run every strength, repeat what was chosen, and write docs/NAME.md; goes on if stopped.

    Args:
        name: Of params/NAME.yaml.
    """
    shown = pipeline.Shown(name)
    outcomes: list[str] = []

    def have(attempt: Attempt) -> Found:
        state: State[Any] = experiment(attempt, return_state=True)
        found: Found = state.result()
        outcomes.append(str(state.name))
        return found

    try:
        grid.run(name, shown.line, have)
    except AtelierError as error:
        return Failed(message=str(error))
    page = grid.document(name)
    create_markdown_artifact(markdown=page.read_text(encoding="utf-8"), key=f"study-{name}")
    ran = outcomes.count("Ran")
    return Completed(
        name="Ran" if ran else "RanBefore",
        message=f"{ran} of {len(outcomes)} experiments ran, the others had before: {page}",
    )


@task(task_run_name="{attempt.name}", persist_result=False, cache_policy=NO_CACHE)
def experiment(attempt: Attempt) -> State[Any]:
    """Have one experiment, on devices of its own if it has to be run."""
    found = attempt.known()
    if found is not None:
        return Completed(name="RanBefore", message="found earlier", data=found)
    # The experiment runs all stages one after the other: it holds what the largest asks for.
    largest = max(stages.read(), key=lambda stage: (stage.meta.gpu, stage.meta.memory))
    with gpus.slot(largest, gpus.limit(), get_run_logger().info) as devices:
        return Completed(name="Ran", message="ran now", data=attempt.perform(devices))
