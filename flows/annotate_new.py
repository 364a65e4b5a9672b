"""Flow ``annotate-new``: judge and split new pictures in ``data/``, without training."""

import json
import subprocess
from typing import Any

import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import pipeline, run_names
from flows.dvc import runner, stages
from flows.dvc.overrides import AS_WRITTEN
from tasks.run import paths

_STAGES = ("annotate", "split")


@flow(flow_run_name=run_names.of_run, persist_result=False)
def annotate_new() -> State[Any]:
    """Add the pictures of data/ to DVC, judge the new ones, and split them.

    What was judged is kept, and an agent is asked about new pictures alone. The trainings are
    out of date afterwards; `reproduce` runs them on request.
    """
    before = _files()
    added = subprocess.run(
        runner.dvc("add", "--quiet", str(paths.DATA)),
        env=runner.environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if added.returncode:
        return Failed(message=f"dvc add {paths.DATA}: {added.stderr.strip()}")
    get_run_logger().info("%s files are in %s/, %s before", _files(), paths.DATA, before)
    state = pipeline.bring_up(stages.alone(*_STAGES), force=False, wanted=AS_WRITTEN)
    if state.is_completed():
        create_markdown_artifact(markdown=_report(before), key="annotate-new")
    return state


def _files() -> int:
    """Return how many files data.dvc pins."""
    if not paths.DATA_PIN.is_file():
        return 0
    (out,) = yaml.safe_load(paths.DATA_PIN.read_text(encoding="utf-8"))["outs"]
    return int(out["nfiles"])


def _report(before: int) -> str:
    judged = json.loads((paths.ANNOTATE / "summary.json").read_text(encoding="utf-8"))
    parts = json.loads((paths.SPLIT / "summary.json").read_text(encoding="utf-8"))["images"]
    return (
        f"* files in `{paths.DATA}/`: {_files()}, {before} before\n"
        f"* pictures judged: {judged['images']}, set aside: {judged['quarantined']}, "
        f"judgements: {judged['judgements']}\n"
        f"* {', '.join(f'{part}: {count}' for part, count in parts.items())}\n"
        f"* `{paths.DATA_PIN}` and `{paths.DVC_LOCK}` are changed; commit them to keep this\n"
    )
