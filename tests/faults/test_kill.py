"""``kill -9`` at random moments: what comes out is what would have come out."""

import json
import random
import shutil
import time
from collections import Counter

import pytest

from tests.faults import workshop

# How often each is killed, one kill after another, until it is let through: 50 in all.
KILLS = {
    "annotate": (4, 4),
    "split": (6,),
    "sft": (4, 4),
    "cpo": (4, 4),
    "generate": (2, 2),
    "evaluate": (2,),
}
BY_THE_AGENT = 8
OF_THE_WHOLE = 4
OF_THE_FLOW = 2
SAME = "the same artifacts byte for byte; no half-written file, no stale lock, no run left open"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("stage", "kills", "turn"),
    [
        pytest.param(stage, kills, turn, id=f"{stage}-{turn}")
        for stage, each in KILLS.items()
        for turn, kills in enumerate(each)
    ],
)
def test_a_killed_stage_ends_as_if_nobody_had_killed_it(
    undisturbed, tmp_path, figure, stage, kills, turn
):
    chance = random.Random(f"{stage} {turn}")
    took = workshop.seconds(undisturbed)[stage]

    folder, hits = _killed(
        lambda to: workshop.copied(undisturbed, stage, to),
        ["-m", "dvc", "repro", "--single-item", stage],
        took,
        [chance.uniform(0.2, 1.0) for _ in range(4 * kills)],
        kills,
        tmp_path,
    )

    assert hits == kills
    _expect_the_same(folder, undisturbed, stage)
    figure("Kill", f"`{stage}` killed by `dvc repro`'s process group", hits, SAME)


@pytest.mark.timeout(1200)
def test_the_agents_answers_are_paid_for_once(shared, tmp_path, vlm, model_server, figure):
    reference = workshop.undisturbed(
        shared, vlm, f"agent-{vlm['base_url'].split(':')[-1][:-3]}"
    )
    model_server.follow()
    chance = random.Random("agent")
    took = workshop.seconds(reference)["annotate"]

    folder, hits = _killed(
        lambda to: workshop.copied(reference, "annotate", to),
        ["-m", "dvc", "repro", "--single-item", "annotate"],
        took,
        [chance.uniform(0.4, 1.0) for _ in range(4 * BY_THE_AGENT)],
        BY_THE_AGENT,
        tmp_path,
        keep="artifacts/cache",  # no run deletes what was paid for
    )

    assert hits == BY_THE_AGENT
    _expect_the_same(folder, reference, "annotate")
    (cache,) = (folder / "artifacts/cache/answers").glob("*.jsonl")
    answers = [json.loads(line) for line in cache.read_text().splitlines()]
    twice = Counter((one["image"], one["asked"]) for one in answers if one["unfit"] is None)
    assert set(twice.values()) == {1}
    figure(
        "Kill",
        "`annotate` by the agent against a model server",
        hits,
        f"{SAME}; {len(answers)} answers in the response cache, none twice",
    )


@pytest.mark.timeout(1200)
def test_a_whole_dvc_repro(undisturbed, tmp_path, figure):
    chance = random.Random("whole")
    took = sum(workshop.seconds(undisturbed).values())

    folder, hits = _killed(
        lambda to: workshop.copied(undisturbed, "annotate", to),
        ["-m", "dvc", "repro"],
        took,
        [chance.uniform(0.05, 0.45) for _ in range(4 * OF_THE_WHOLE)],
        OF_THE_WHOLE,
        tmp_path,
    )

    assert hits == OF_THE_WHOLE
    _expect_the_same(folder, undisturbed, *workshop.STAGES)
    figure("Kill", "the whole pipeline, `dvc repro`", hits, SAME)


@pytest.mark.timeout(1200)
def test_a_whole_flow_run(undisturbed, tmp_path, figure):
    chance = random.Random("flow")
    took = sum(workshop.seconds(undisturbed).values())
    mine = {"PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1"}
    mine["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
    (tmp_path / "tmp").mkdir()
    mine["TMPDIR"] = str(tmp_path / "tmp")  # with leases of its own: nobody else is waited for

    folder, hits = _killed(
        lambda to: workshop.copied(undisturbed, "annotate", to),
        ["-m", "cli", "run"],
        20 + took,  # its server starts first
        [chance.uniform(0.4, 0.8) for _ in range(4 * OF_THE_FLOW)],
        OF_THE_FLOW,
        tmp_path,
        **mine,
    )

    assert hits == OF_THE_FLOW
    _expect_the_same(folder, undisturbed, *workshop.STAGES)
    figure("Kill", "the whole pipeline, `atelier run`", hits, SAME)


def _killed(make, words, took, moments, kills, tmp_path, *, keep=None, **more):
    """Kill a command again and again, then let it through; return where, and how often.

    Moments are shares of how long the command takes. One that ended before its moment came is
    begun anew, and tells how long it takes by now: the machine may be less busy than before.
    """
    folder, hits = make(tmp_path / "0"), 0
    for turn, moment in enumerate(moments, start=1):
        if hits == kills:
            break
        began = time.monotonic()
        if workshop.kill(workshop.start(folder, *words, **more), moment * took):
            hits += 1
            continue
        took = time.monotonic() - began
        fresh = make(tmp_path / str(turn))
        if keep is not None and (folder / keep).is_dir():
            shutil.copytree(folder / keep, fresh / keep, dirs_exist_ok=True)
        folder = fresh
    workshop.python(folder, *words, timeout=900, **more)
    return folder, hits


def _expect_the_same(folder, undisturbed, *stages):
    found = workshop.outputs(folder, *stages)
    right = workshop.outputs(undisturbed / "after", *stages)
    assert sorted(found) == sorted(right)
    assert [name for name, content in found.items() if content != right[name]] == []
    assert workshop.leftovers(folder) == []
    assert workshop.held_locks(folder) == []
    runs = workshop.runs(folder)
    assert "RUNNING" not in {status for _, status in runs}, runs
    assert [status for stage, status in runs if stage in stages][-1] == "FINISHED"
    again = workshop.repro(stages[0], folder)
    assert "didn't change, skipping" in again
