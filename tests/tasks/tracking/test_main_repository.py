"""Temporary copies of a repository share what must outlive them."""

import pytest

from tasks.run import paths
from tasks.tracking import data_version, main_repository


@pytest.fixture
def copy(workspace, monkeypatch):
    """A copy as `dvc exp run --temp` makes it: the working directory."""
    place = workspace / ".dvc/tmp/exps/standalone/tmpabc"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


def test_a_copy_links_runs_checkpoints_and_paid_answers(workspace, copy):
    (workspace / "weights").mkdir()

    for _ in range(2):
        main_repository.share()

    assert main_repository.found() == workspace
    for folder in (paths.MLFLOW, paths.RESUME, paths.CACHE, paths.SURVEY):
        assert (copy / folder).resolve() == workspace / folder
    assert (copy / "weights").resolve() == workspace / "weights"
    assert main_repository.experiment() == "tmpabc"


def test_a_copy_whose_repository_was_moved_is_linked_again(workspace, copy):
    paths.CACHE.parent.mkdir(parents=True)
    paths.CACHE.symlink_to(workspace / "elsewhere", target_is_directory=True)

    main_repository.share()

    assert (copy / paths.CACHE).resolve() == workspace / paths.CACHE


def test_the_main_repository_itself_links_nothing(workspace, monkeypatch):
    main_repository.share()

    assert main_repository.found() is None
    assert main_repository.experiment() is None
    assert not paths.ARTIFACTS.exists()


def test_the_data_of_a_run_is_what_lies_there_and_not_what_was_pinned(workspace, monkeypatch):
    def dvc(*words):
        from dvc.cli import main  # in this process: a new one costs seconds

        assert main([*words, "-q"]) == 0

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    paths.DATA.mkdir()
    (paths.DATA / "a.png").write_text("a")
    (workspace / "dvc.yaml").write_text("stages:\n  split: {cmd: 'true', deps: [data]}\n")
    dvc("init", "--no-scm")
    dvc("add", "data")
    dvc("repro")
    pinned = data_version.locked()
    (paths.DATA / "b.png").write_text("b")

    found = data_version.of_run("split")

    assert found != pinned
    assert data_version.locked() == pinned
    dvc("repro")
    assert data_version.locked() == found  # DVC's own
