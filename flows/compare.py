"""Flow ``compare``: two registered models; promotes the better one by a fixed rule."""

import json
import sys
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import pipeline, run_names
from flows.dvc import runner, stages
from flows.infra import gpus
from tasks.run import paths

_KEY = "comparison"


@flow(flow_run_name=run_names.of_run, persist_result=False)
def compare(
    first: str,
    second: str,
    slack: float,
    promote: bool,
    crown: bool = False,
    pairwise: bool = False,
) -> State[Any]:
    """Generate the test captions with both from the same noise, and return which is better.

    The second takes the place of the first (the alias `serving` of the registry) if the 95%
    interval of the difference of #A_neg lies below zero and its FID is not worse by more than
    the slack.

    Args:
        first: The model to beat: base, serving, theta@champion, theta/3, theta1/1.
        second: The model that may take its place.
        slack: By which share the second's FID may be worse.
        promote: Move the alias, if the rule says so.
        crown: Move the alias `champion` by the same rule.
        pairwise: Also let the annotator see both pictures: the win rate by criterion.
    """
    return run(first, second, slack=slack, promote=promote, crown=crown, pairwise=pairwise)


def run(
    first: str,
    second: str,
    *,
    slack: float,
    promote: bool,
    crown: bool = False,
    pairwise: bool = False,
) -> State[Any]:
    """Compare inside the calling flow; the name of the state tells which is better."""
    log = get_run_logger()
    painting = stages.read(["generate"])[-1]
    words = [sys.executable, "-m", "cli", "compare", first, second]
    words += ["--slack", str(slack), *["--promote"] * promote]
    words += [*["--crown"] * crown, *["--pairwise"] * pairwise]
    shown = pipeline.Shown(_KEY)
    with gpus.slot(painting, gpus.limit(), log.info) as devices:
        try:
            runner.command(_KEY, words, painting.meta, more=devices, tell=shown.line)
        except BaseException:
            runner.stop_all()
            raise
    said = json.loads(paths.COMPARISON.read_text(encoding="utf-8"))
    create_markdown_artifact(markdown=table(said), key=_KEY)
    return Completed(name="Better" if said["better"] else "NotBetter", message=said["why"])


def table(said: dict[str, Any]) -> str:
    """Return the result of a comparison as Markdown."""
    rows = ["| | model | #A_neg | FID |", "|---|---|---|---|"]
    for letter in "AB":
        one = said[letter]
        fid = "–" if one["fid"] is None else f"{one['fid']['fid']:.2f}"
        rows.append(
            f"| {letter} | {one['model']} | "
            "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**one["negatives"])
            + f" | {fid} |"
        )
    preferred = said.get("preferences") or {}
    if preferred:
        rows += ["", "| criterion | B wins | ties | contradictions |", "|---|---|---|---|"]
    for path, one in preferred.items():
        wins = one["wins"]
        share = (
            "–"
            if wins is None
            else "{estimate:.0%} [{low:.0%}, {high:.0%}] of {count}".format(**wins)
        )
        rows.append(f"| {path} | {share} | {one['ties']} | {one['contradictions']} |")
    return "\n".join([*rows, "", said["why"]]) + "\n"
