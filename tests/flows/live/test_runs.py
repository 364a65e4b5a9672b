"""The data of the live page, from the files that a run leaves."""

import os

import psutil
import pytest

from flows.live import graph, plans, runs, tracked
from tasks.run import paths, progress
from tasks.tracking import run_record

KEY = "host-7-1764"


def states():
    return {one.name: one.state for one in runs.read(KEY).stages}


def stage(name):
    return next(one for one in runs.read(KEY).stages if one.name == name)


def ended_process():
    """What a record says of a process that is gone."""
    return f"{os.uname().nodename}/{psutil.Process().pid}/1"


def test_reasons_and_order_are_the_plans(run):
    assert states() == {"draw": "waits", "train": "waits", "look": "waits"}
    assert stage("draw").reasons == ["it never ran"]
    assert stage("train").after == ["draw"]
    assert stage("look").after == ["train"], "it comes after draw through train"
    assert runs.read(KEY).state == "running"


def test_only_what_was_asked_for_is_planned(repository):
    run_record.begin("asked", psutil.Process(), repository)
    run_record.note("asked", command=["dvc", "repro", "train"])

    plans.look("asked")

    assert [one.name for one in runs.read("asked").stages] == ["draw", "train"]


def test_a_bar_says_how_long_it_takes(run, monkeypatch):
    with run_record.stage("train", run, {}), progress.bar("train", 100, "images") as report:
        report(10, {})
        bar = run_record._here.bars[0]
        bar.rate, bar.moved = 2.0, runs.time.time()
        run_record._here.write(at_once=True)

        seen = stage("train")
        assert seen.state == "running"
        assert seen.bar.seconds_left == pytest.approx(45, abs=2)  # 90 steps at 2 a second
        assert states()["draw"] == "done", "a later stage has begun"

        left, unknown = runs.seconds_left(runs.read(KEY), {"look": 30.0})
        assert left == pytest.approx(75, abs=2)
        assert unknown == []
        left, unknown = runs.seconds_left(runs.read(KEY), {"train": 600.0})
        assert left == pytest.approx(600, abs=5), "other bars of the stage may follow"
        assert unknown == ["look"]

    assert states()["train"] == "done"
    assert stage("train").bar.seconds_left is None


def test_the_price_adds_passes_and_seconds_of_this_run_alone(run):
    costs = {"train": {"policy": 2, "frozen": 4}}
    with run_record.stage("train", run, costs):
        with progress.bar("train", 60, "images", each=2) as report:
            report(41, {})
            report(60, {})
        with progress.bar("judge", 9, "images") as report:
            report(0, {"cost": 1.0})
            report(9, {"cost": 3.5})

    price = runs.read(KEY).price
    assert (price.policy_passes, price.frozen_passes) == (2 * 20, 4 * 20)
    assert price.judged == 2.5
    assert price.gpu_seconds == 0
    assert price.money(36.0) == pytest.approx(price.cpu_seconds / 100 + 2.5)


def test_seconds_of_gpus_are_the_price_where_there_are_any():
    price = runs.Price(7200, 90000, 0, 0, 0)

    assert price.money(2.5) == 5


def test_a_flows_outcomes_and_end_are_shown(run):
    for name, what in (("draw", "UpToDate"), ("train", "RunCached")):
        plans.outcome(run, name, what)
    plans.end(run, "finished")
    plans.outcome(run, "look", "Ran")

    assert states() == {"draw": "unchanged", "train": "restored", "look": "done"}
    assert runs.read(KEY).state == "finished"


def test_a_killed_run_counts_as_stopped_and_a_failed_one_as_failed(run):
    with run_record.stage("draw", run, {}):
        pass
    run_record.note(run, process=ended_process())
    assert runs.read(KEY).state == "stopped"
    assert states() == {"draw": "done", "train": "not reached", "look": "not reached"}

    with pytest.raises(ValueError, match="broken"), run_record.stage("train", run, {}):
        raise ValueError("broken")
    assert runs.read(KEY).state == "failed"


def test_a_repro_whose_last_stage_is_done_has_finished(run):
    for name in ("draw", "train", "look"):
        with run_record.stage(name, run, {}):
            pass
    run_record.note(run, process=ended_process())

    assert runs.read(KEY).state == "finished"
    assert set(states().values()) == {"done"}


def test_a_killed_stage_is_not_running_for_ever(run):
    with run_record.stage("train", run, {}):
        file = run_record.folder(run) / "train.json"
        begun = run_record.read(file)
    run_record._write(file, begun | {"process": ended_process()})

    assert stage("train").state == "stopped"


def test_pictures_of_a_later_run_are_not_shown_as_those_of_an_earlier_one(run, paint):
    with run_record.stage("generate", run, {}):
        for number in range(10):
            paint(runs.paths.GENERATE / "base" / f"{number:03}.png", number)
        work = runs.paths.RESUME / f"generate-cpo-s-{'0123456789abcdef'}" / "pictures"
        paint(work / "000.png")

        shown = {
            one.painter: (len(one.files), one.count) for one in runs.painted(runs.read(KEY))
        }
    assert shown == {"base": (8, 10), "cpo-s": (1, 1)}

    run_record.begin("later", psutil.Process(), runs.Path.cwd())
    with run_record.stage("generate", "later", {}):
        pass
    assert runs.painted(runs.read(KEY)) == []
    assert len(runs.painted(runs.read("later"))) == 2


def test_the_drawing_has_a_box_for_each_stage_and_an_edge_for_each_need(run):
    drawing = graph.drawn(runs.read(KEY).stages)

    assert drawing.count("<rect") == 3
    assert drawing.count("<path") == 2
    assert 'href="#stage-train"' in drawing
    assert "train: waits" in drawing


def test_a_poll_reads_only_the_files_that_changed(run, monkeypatch):
    read = []
    real = run_record.read
    monkeypatch.setattr(run_record, "read", lambda file: read.append(file.name) or real(file))
    for name in ("draw", "train"):
        with run_record.stage(name, run, {}):
            pass
    files = sorted(run_record.folder(run).glob("*.json"))
    for file in files:
        age(file)

    for _ in range(3):  # polls
        assert states()["draw"] == "done"
    assert sorted(read) == [file.name for file in files]

    with pytest.raises(KeyboardInterrupt), run_record.stage("train", run, {}):
        raise KeyboardInterrupt
    assert states()["train"] == "stopped"
    assert "train.json" in read[len(files) :]
    assert "draw.json" not in read[len(files) :]


def age(file):
    """Make a file look as if it had not changed for a minute."""
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 60))


def test_a_poll_asks_mlflows_file_only_after_it_changed(run, monkeypatch):
    asked = []

    class Client:
        def search_experiments(self):
            asked.append("experiments")
            return []

        def search_runs(self, *args, **more):
            return []

    monkeypatch.setattr(tracked, "_client", lambda root: Client())
    paths.MLFLOW.mkdir(parents=True)
    file = paths.MLFLOW / "mlflow.db"
    for content in ("first", "second"):
        file.write_text(content)
        age(file)
        for _ in range(3):  # polls
            assert tracked.of(run) == tracked.Tracked(None, {}, [])

    assert asked == ["experiments"] * 2
