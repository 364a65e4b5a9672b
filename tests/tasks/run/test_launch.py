"""Two processes that train together, against one: real ones, by accelerate's launcher."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from atelier.errors import ParamsError
from tasks.run import launch, paths

TWO = {"ATELIER_PROCESSES": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def start(stage, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tasks", stage],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process):
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return said


def change(section, **values):
    file = paths.PARAMS / "toy.yaml"
    profile = yaml.safe_load(file.read_text())
    profile[section]["training"] |= values
    file.write_text(yaml.safe_dump(profile))


def curve(file):
    with file.open() as rows:
        return [
            {k: float(v) for k, v in row.items()}
            for row in csv.DictReader(rows, delimiter="\t")
        ]


def without_accuracy(row):
    """At the first step policy and reference agree: rounding says who leans which way."""
    return {name: value for name, value in row.items() if name != "accuracy"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "sdxl", "sd3"])
def test_two_processes_follow_the_curve_of_one(studio, family):
    change("sft", steps=6, batch_images=5, ema_decay=0.9)
    finish(start("sft"))
    alone = curve(paths.SFT / "curve.tsv")
    (paths.SFT / "curve.tsv").unlink()

    said = finish(start("sft", **TWO))

    assert said.count("took") == 3  # embeddings, latents, training: the first one speaks
    together = curve(paths.SFT / "curve.tsv")
    assert [row["step"] for row in together] == [1, 2, 3, 4, 5, 6]
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-3)


@pytest.mark.slow
def test_two_processes_that_share_the_base_follow_the_curve_of_one(studio):
    """Through all of the command: launcher, grids that all processes paint, sft, cpo."""
    grids = {"every_steps": 3, "prompts": 2, "steps": 2, "guidance": 2.0}
    shutil.copy(paths.SPLIT / "train.jsonl", paths.SPLIT / "validation.jsonl")
    for section in ("sft", "cpo"):
        change(section, steps=6, batch_images=4, images_at_once=1, grids=grids)
    finish(start("sft"))
    finish(start("cpo"))
    files = [paths.SFT / "curve.tsv", *sorted(paths.CPO.glob("*/curve.tsv"))]
    alone = [curve(file) for file in files]
    shutil.rmtree(paths.SFT)
    shutil.rmtree(paths.CPO)

    said = finish(start("sft", **TWO, ATELIER_SHARDED="1"))
    finish(start("cpo", **TWO, ATELIER_SHARDED="1"))

    assert "2 process(es), each with its share of the base, on" in " ".join(said.split())
    assert len(files) > 1
    for one, file in zip(alone, files, strict=True):
        for row, other in zip(one, curve(file), strict=True):
            assert without_accuracy(other) == pytest.approx(
                without_accuracy(row), rel=1e-3, abs=1e-3
            )


@pytest.mark.parametrize(
    ("processes", "sharded", "said"),
    [
        ("2", "yes", "ATELIER_SHARDED should be 1 .* is 'yes'"),
        ("1", "1", "cannot share the base"),
    ],
)
def test_what_cannot_be_shared_is_told_before_anything_starts(
    monkeypatch, processes, sharded, said
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ATELIER_PROCESSES", processes)
    monkeypatch.setenv("ATELIER_SHARDED", sharded)

    with pytest.raises(ParamsError, match=said):
        launch.wanted("cpo")


def test_a_number_of_processes_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("ATELIER_PROCESSES", "two")

    with pytest.raises(ParamsError, match=r"ATELIER_PROCESSES should be a number .* is 'two'"):
        launch.wanted("cpo")


def test_only_trainings_are_started_as_several_and_only_once(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not launch.wanted("cpo")
    monkeypatch.setenv("ATELIER_PROCESSES", "2")
    assert launch.wanted("cpo")
    assert not launch.wanted("annotate")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launch.wanted("cpo")


@pytest.mark.slow
def test_a_mistake_is_told_once_and_a_killed_launcher_leaves_nobody_behind(studio):
    process = start("cpo", **TWO)  # there is no θ1
    said, _ = process.communicate(timeout=280)

    assert process.returncode == 2
    assert said.count("Error: ") == 1
    assert "pytorch_lora_weights.safetensors is absent; run `dvc repro sft`" in said
    assert "Traceback" not in said

    change("sft", steps=10_000)
    process = start("sft", **TWO)
    deadline = time.monotonic() + 200
    while not list(paths.RESUME.glob("sft-*/step-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()

    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
