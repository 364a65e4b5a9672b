"""Who tracks a base: what is made here, what git holds, and what DVC cannot take."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from atelier.errors import ArtifactError
from tasks.run import pins

ROOT = Path(__file__).parents[3]
BASE = Path("base/toy")


def git(*words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with our .gitignore and .dvcignore, and a base that was just made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, name)
    (BASE / "unet").mkdir(parents=True)
    (BASE / "model_index.json").write_text("{}")
    (BASE / "unet/weights").write_text("1")
    return tmp_path


def pinned_by_dvc():
    from dvc.repo import Repo

    with Repo(".") as repo:
        return [one.addressing for one in repo.index.stages if one.is_data_source]


def test_a_base_of_ones_own_is_pinned_with_every_file_and_again_when_it_is_made_again(clone):
    said = pins.add(BASE)
    first = yaml.safe_load(pins.of(BASE).read_text())["outs"][0]
    (BASE / "unet/weights").unlink()
    (BASE / "unet/weights").write_text("2")
    pins.add(BASE)
    second = yaml.safe_load(pins.of(BASE).read_text())["outs"][0]

    assert "base/toy.dvc pins it: commit that file" in said
    assert (first["path"], first["nfiles"]) == ("toy", 2)
    assert first["md5"] != second["md5"]
    assert pins.tracker(BASE) == "dvc"
    assert pinned_by_dvc() == ["base/toy.dvc"]  # DVC looks into base/ for pins at all
    git("add", "-A")
    listed = subprocess.run(["git", "ls-files", "base"], capture_output=True, text=True)
    assert listed.stdout.split() == ["base/toy.dvc"]


def test_a_base_in_git_is_left_as_it_is(clone):
    git("add", "--force", "base/toy")

    assert "git tracks base/toy" in pins.add(BASE)
    assert pins.tracker(BASE) == "git"
    assert not pins.of(BASE).exists()


def test_a_note_that_git_tracks_in_the_folder_is_named_with_the_cure(clone):
    (BASE / "README.md").write_text("Put one here.")
    git("add", "--force", "base/toy/README.md")

    assert "`git rm --quiet base/toy/README.md` first" in pins.add(BASE)
    assert pins.tracker(BASE) == "nobody"

    git("rm", "--quiet", "--force", "base/toy/README.md")
    pins.add(BASE)
    assert pins.tracker(BASE) == "dvc"


@pytest.mark.parametrize("base", ["../elsewhere/toy", "/elsewhere/toy"])
def test_a_base_outside_the_repository_is_told_as_one_that_others_will_not_have(clone, base):
    assert "other clones will not have it: it lies outside" in pins.add(Path(base))


def test_without_dvc_it_says_so(clone):
    shutil.rmtree(".dvc")

    assert "this is no DVC repository" in pins.add(BASE)


def test_when_dvc_fails_the_base_is_said_to_be_whole(clone):
    Path(".dvc/config").write_text("not a config")

    with pytest.raises(ArtifactError, match="base/toy is whole, but DVC could not pin it"):
        pins.add(BASE)
