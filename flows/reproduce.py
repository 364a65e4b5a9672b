"""Flow ``reproduce``: one Prefect task for each stage of dvc.yaml."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows import pipeline, run_names
from flows.dvc import stages
from flows.dvc.overrides import AS_WRITTEN, Changes

# Prefect's pages offer the stages that dvc.yaml has, and the server refuses any other.
StageName = Annotated[str, Field(json_schema_extra={"enum": list(stages.names())})]


@flow(flow_run_name=run_names.of_run, persist_result=False)
def reproduce(
    targets: list[StageName] | None = None,
    force: bool = False,
    changes: Changes = AS_WRITTEN,
    where: pipeline.Where = "here",
) -> State[Any]:
    """Run the stages of dvc.yaml, in its order, each where its ``meta`` says.

    Args:
        targets: Stages to bring up to date, with what they need; none means all.
        force: Run them even if nothing changed.
        changes: Settings for this run alone; the profile's file is as before afterwards.
        where: On this machine, or on the workers of the pools `cpu` and `gpu`.
    """
    order = stages.read(targets or ())
    return pipeline.bring_up(order, force=force, wanted=changes, where=where)
