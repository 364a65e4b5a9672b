"""What a stage and its bars note of themselves, for the live page."""

import json
import os
from pathlib import Path

import psutil
import pytest

from tasks.run import paths, progress
from tasks.tracking import run_record, sync

RUN = "host/7/1764"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / paths.LIVE / "host-7-1764"


def noted(file):
    return json.loads(file.read_text())


def test_a_stage_notes_its_process_its_bars_and_how_it_ended(folder):
    costs = {"sft": {"policy": 2, "frozen": 0}}
    with (
        run_record.stage("sft", RUN, costs),
        progress.bar("sft", 300, "images", each=2) as report,
    ):
        report(41, {"loss": 0.5})
        report(300, {"loss": 0.25})

    seen = noted(folder / "sft.json")
    assert (seen["stage"], seen["state"]) == ("sft", "finished")
    assert seen["process"] == sync.ident(psutil.Process())
    assert seen["folder"] == str(Path.cwd())
    assert seen["passes"] == costs
    assert seen["gpus"] == 0
    assert 0 < seen["cpu_seconds"] <= sum(os.times()[:4]) + 0.01
    (bar,) = seen["bars"]
    assert (bar["title"], bar["done"], bar["total"]) == ("sft", 300, 300)
    assert bar["first"] == 40, "a training that goes on reports after its 41st step"
    assert bar["values"] == {"loss": 0.25}


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "stopped"), (ValueError, "failed")]
)
def test_how_a_stage_ended_early_is_noted(folder, error, state):
    with pytest.raises(error), run_record.stage("sft", RUN, {}):
        raise error

    assert noted(folder / "sft.json")["state"] == state


def test_what_answers_had_cost_before_is_no_price_of_this_run(folder):
    with run_record.stage("annotate", RUN, {}), progress.bar("annotate", 9, "images") as report:
        report(0, {"opened": 9})
        report(3, {"cost": 1.5})
        report(9, {"cost": 2.0})

    (bar,) = noted(folder / "annotate.json")["bars"]
    assert (bar["cost_before"], bar["values"]["cost"]) == (1.5, 2.0)


def test_a_run_is_noted_once_and_added_to(folder):
    run_record.begin(RUN, psutil.Process(), Path.cwd())
    began = noted(folder / "run.json")["began"]

    run_record.begin(RUN, psutil.Process(os.getppid()), Path.cwd())
    run_record.note(RUN, outcomes={"split": "Ran"})
    run_record.note(RUN, outcomes={"sft": "UpToDate"})

    seen = noted(folder / "run.json")
    assert (seen["run"], seen["began"]) == (RUN, began)
    assert seen["process"] == sync.ident(psutil.Process())
    assert seen["command"] == psutil.Process().cmdline()
    assert seen["outcomes"] == {"split": "Ran", "sft": "UpToDate"}


def test_a_bar_outside_of_a_stage_is_recorded_nowhere(tmp_path):
    with progress.bar("drawing", 3, "images") as report:
        report(3, {})

    assert not (tmp_path / paths.LIVE).exists()


def test_a_record_that_cannot_be_written_costs_no_stage(tmp_path):
    (tmp_path / "artifacts").write_text("in the way")

    with run_record.stage("sft", RUN, {}), progress.bar("sft", 1, "images") as report:
        report(1, {})
