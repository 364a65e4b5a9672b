"""Flows started from the command line: server check, exit code."""

from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from flows.dvc.overrides import Changes
    from flows.pipeline import Where


def reproduce(
    targets: list[str] | None, force: bool, changes: "Changes", where: "Where"
) -> NoReturn:
    """Run the flow ``reproduce`` and exit as it ended."""
    _expect_server()
    from flows import reproduce as module

    _exit(module.reproduce(targets, force, changes, where, return_state=True))


def sharded(stage: str, shards: int, workers: int, scheduler: str | None) -> NoReturn:
    """Run the flow ``annotate_sharded`` or ``evaluate_sharded`` and exit as it ended."""
    from flows import sharded as module

    module.runner(workers, scheduler)  # what is absent is reported before Prefect starts
    _expect_server()
    run = {"annotate": module.annotate_sharded, "evaluate": module.evaluate_sharded}[stage]
    _exit(run(shards, workers, scheduler, return_state=True))


def compare(first: str, second: str, slack: float, promote: bool) -> NoReturn:
    """Run the flow ``compare`` and exit as it ended."""
    _expect_server()
    from flows import compare as module

    _exit(module.compare(first, second, slack, promote, return_state=True))


def _expect_server() -> None:
    from flows.infra import doctor

    doctor.expect_server()


def _exit(state: "State[Any]") -> NoReturn:
    raise typer.Exit(0 if state.is_completed() else 1)
