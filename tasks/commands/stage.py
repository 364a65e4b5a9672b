"""Runs one stage: checks the input, starts its processes, records it in MLflow.

Everything that may be mistyped (the switch, the profile, the criteria) is checked before
anything heavy is imported.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atelier.config.profile import Profile

BASE = "base"  # trains as stages do, but its result is an input: it is not in dvc.yaml


def run(name: str) -> None:
    """Run ``tasks.<name>`` inside a tracked run.

    Raises:
        AtelierError: An input, a setting or the machine does not fit.
    """
    profile = checked_profile()
    from atelier import atomic, quick_imports

    with quick_imports.uncollected():
        from tasks import code
        from tasks.run import launch, machine, paths
        from tasks.tracking import main_repository, mlflow_runs, run_record
        from tasks.training import passes

    code.check(name)
    main_repository.share()
    atomic.sweep(paths.ARTIFACTS)
    if launch.wanted(name):
        launch.several(name)
    module = "tasks.commands.base" if name == BASE else f"tasks.{name}"
    with quick_imports.uncollected():
        task = importlib.import_module(module)
    launch.end_with_launcher()
    if not machine.speaks():
        task.run(profile, mlflow_runs.StageRun())  # the first process keeps the record
        return
    run, process = mlflow_runs.pipeline()
    run_record.begin(run, process, Path.cwd())
    with (
        run_record.stage(name, run, passes.of(name, profile)),
        mlflow_runs.stage(name, profile, later=name in launch.TRAINING) as tracked,
    ):
        task.run(profile, tracked)
    _leave_receipt()


def checked_profile() -> "Profile":
    """Return the profile in force, with the criteria that it names proved readable.

    Raises:
        ParamsError: ``params/profile.yaml`` or the profile does not fit.
        CriteriaError: The criteria file does not fit.
    """
    from atelier.config.profile import read_in_force
    from atelier.criteria import tree
    from tasks.run import paths

    profile = read_in_force(paths.PARAMS)
    tree.parse(paths.CRITERIA / profile.annotate.criteria)
    return profile


def _leave_receipt() -> None:
    """Tell a flow that asked for it that the stage is done, in case DVC dies right after."""
    from tasks.run import paths

    receipt = os.environ.get(paths.RECEIPT)
    if receipt:
        Path(receipt).touch()
