"""Stage flows: one flow per stage of dvc.yaml, by its name: ``flows.stage_flows:sft``.

The names are those of dvc.yaml; a flow is created when this module's attribute is read.
"""

from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State

from atelier.errors import ParamsError
from flows import pipeline, run_names
from flows.dvc import stages
from flows.dvc.overrides import AS_WRITTEN, Changes


def of(name: str) -> Flow[..., State[Any]]:
    """Return the flow that runs one stage alone, on what the stages before it left.

    Raises:
        ParamsError: dvc.yaml has no such stage.
    """
    if name not in stages.names():
        raise ParamsError(f"dvc.yaml has no stage {name}; it has {', '.join(stages.names())}")

    def run(
        force: bool = False,
        changes: Changes = AS_WRITTEN,
    ) -> State[Any]:
        """Run this stage alone, if something changed, on what the stages before it left.

        Args:
            force: Run it even if nothing changed.
            changes: Settings for this run alone; the profile's file is as before afterwards.
        """
        return pipeline.bring_up(stages.alone(name), force=force, wanted=changes)

    # Prefect finds a flow again by module and name, in the process that runs it.
    run.__module__, run.__name__, run.__qualname__ = __name__, name, name
    return flow(name=name, flow_run_name=run_names.of_run, persist_result=False)(run)


def __getattr__(name: str) -> Flow[..., State[Any]]:
    try:
        return of(name)
    except ParamsError:
        raise AttributeError(f"module {__name__} has no flow {name}") from None
