import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.run import kept

OUT = Path("out")
KEYS = {"a": "1", "b": "2"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def make(name, key, text="weights"):
    folder = OUT / name
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_text(text)
    (folder / "deep/curve").write_text("1\n")
    kept.seal(folder, key)


def test_a_whole_part_of_the_same_key_is_left_as_it_is():
    make("a", "1")
    file = OUT / "a/weights"
    before = file.stat()

    assert kept.to_make(OUT, KEYS) == ["b"]
    assert kept.take(OUT, KEYS) == {"a"}
    assert file.stat() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda: (OUT / "a/weights").write_text("Weights"),
        lambda: (OUT / "a/deep/curve").unlink(),
        lambda: (OUT / "a/more").write_text("of something else"),
        lambda: (OUT / "a/made_of.json").write_text("{"),
        lambda: (OUT / "a/made_of.json").write_text("[]"),
        lambda: (OUT / "a/made_of.json").unlink(),
    ],
)
def test_a_damaged_part_is_removed(damage):
    make("a", "1")
    damage()

    assert kept.take(OUT, KEYS) == set()
    assert not (OUT / "a").exists()


def test_parts_of_another_key_and_of_other_names_are_removed():
    make("a", "0")
    make("c", "3")

    assert kept.take(OUT, KEYS) == set()
    assert list(OUT.iterdir()) == []


def test_parts_lie_in_folders_and_what_is_no_part_is_removed():
    make("scores/a", "1")
    make("scores/b", "0")
    make("features/a", "3")
    (OUT / "table.json").write_text("{}")

    found = kept.take(OUT, {"scores/a": "1", "scores/b": "2", "more/c": "4"})

    assert found == {"scores/a"}
    assert sorted(path.as_posix() for path in OUT.iterdir()) == ["out/scores"]
    assert sorted(path.name for path in (OUT / "scores").iterdir()) == ["a"]


def test_a_part_that_an_interrupted_run_had_finished_is_taken():
    make("a", "1")
    OUT.rename("spare")
    make("b", "2")

    assert kept.take(OUT, KEYS, spare=Path("spare")) == {"a", "b"}
    assert (OUT / "a/weights").read_text() == "weights"


def test_nothing_is_kept_on_request(monkeypatch):
    make("a", "1")
    monkeypatch.setenv(kept.NOTHING, "1")

    assert kept.take(OUT, KEYS) == set()


@pytest.fixture
def committed():
    """Two parts, as a stage of DVC left them, in the cache and nowhere else."""
    make("a", "1")
    make("b", "2")
    stages = {
        "train": {"cmd": "true", "outs": ["out"]},
        "look": {"cmd": "true", "deps": ["out"]},
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for words in (["init", "--no-scm"], ["commit", "-f", "train"]):
        subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], check=True)
    shutil.rmtree(OUT)


def test_what_dvc_removed_comes_back_from_its_cache(committed):
    wanted = {"a": "1", "b": "another", "c": "3"}

    assert kept.to_make(OUT, wanted) == ["b", "c"]
    assert kept.take(OUT, wanted) == {"a"}
    assert sorted(path.name for path in OUT.iterdir()) == ["a"]
    assert (OUT / "a/weights").read_text() == "weights"
    assert json.loads((OUT / "a/made_of.json").read_text())["key"] == "1"


def test_what_the_cache_has_not_or_not_whole_is_made_again(committed):
    (changed,) = [file for file in Path(".dvc/cache").rglob("*") if _is(file, "weights")]
    changed.chmod(0o644)
    changed.write_text("Weights")
    assert kept.take(OUT, KEYS) == set()

    shutil.rmtree(".dvc/cache")

    assert kept.take(OUT, KEYS) == set()
    assert kept.to_make(OUT, KEYS) == ["a", "b"]


def _is(file, text):
    return file.is_file() and file.read_text() == text
