import re
import subprocess
import sys
from pathlib import Path

import pytest

from atelier.errors import ParamsError
from flows.dvc import stages

ROOT = Path(__file__).parents[3]


def dvc_edges():
    """The edges of `dvc dag`, from what is needed to who needs it; .dvc files left out."""
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--dot"],
        capture_output=True,
        text=True,
        check=True,
    )
    edges = re.findall(r'"([^"]+)" -> "([^"]+)"', said.stdout)
    return {edge for edge in edges if not edge[0].endswith(".dvc")}


def edges(read):
    return {(need, stage.name) for stage in read for need in stage.needs}


def test_the_graph_is_the_one_dvc_draws(monkeypatch):
    monkeypatch.chdir(ROOT)

    assert edges(stages.read()) == dvc_edges()


def test_each_stage_comes_after_its_needs(repository):
    read = stages.read()

    assert [(stage.name, stage.needs) for stage in read] == [
        ("draw", ()),
        ("train", ("draw",)),
        ("look", ("draw", "train")),
    ]
    assert [stage.meta.gpu for stage in read] == [0, 1, 0]
    assert edges(read) == dvc_edges()


def test_a_stage_has_the_pins_of_the_inputs_that_it_reads_itself(repository):
    path = repository / "dvc.yaml"
    path.write_text(
        path.read_text().replace(
            "    - out/draw\n    outs:\n    - out/train",
            "    - out/draw\n    - base/toy\n    outs:\n    - out/train",
        )
    )
    assert "base/toy" in path.read_text()
    (repository / "base/toy").mkdir(parents=True)
    (repository / "base/toy/weights").write_text("1")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "base/toy"], check=True)

    assert {stage.name: stage.pins for stage in stages.read()} == {
        "draw": (), "train": ("base/toy.dvc",), "look": ()
    }  # fmt: skip


def test_a_target_brings_what_it_needs(repository):
    assert [stage.name for stage in stages.read(["train"])] == ["draw", "train"]


def test_an_unknown_target_is_named_with_those_there_are(repository):
    with pytest.raises(ParamsError, match="no stage trian; it has draw, train, look"):
        stages.read(["trian"])


def test_a_meta_that_does_not_fit_is_named(repository):
    path = repository / "dvc.yaml"
    path.write_text(path.read_text().replace("gpu: 1", "gpus: 1"))

    with pytest.raises(
        ParamsError, match=r"stage train, meta(.|\n)*gpu: field(.|\n)*gpus: extra"
    ):
        stages.read()
