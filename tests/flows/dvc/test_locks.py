import json
import os
import subprocess
import sys

import pytest

from flows.dvc import locks, runner, stages


def note(repository, pid, command="dvc repro --single-item train"):
    """Write down that a process reads what the stage ``draw`` makes."""
    who = {"pid": pid, "cmd": command}
    noted = {"read": {str(repository / "out/draw"): [who]}}
    (repository / ".dvc/tmp").mkdir(exist_ok=True)
    (repository / ".dvc/tmp/rwlock").write_text(json.dumps(noted))
    return noted


def listed(repository):
    return json.loads((repository / ".dvc/tmp/rwlock").read_text())


@pytest.fixture
def draw(repository):
    return stages.read(["draw"])[0]


def bring_up(stage):
    return runner.run(stage, force=False, more={}, tell=lambda line: None)


def test_a_killed_readers_number_that_another_process_has_now_blocks_nobody(repository, draw):
    note(repository, os.getpid())  # this process lives, and reads nothing of DVC's

    assert bring_up(draw) == "Ran"
    assert listed(repository) == {}


def test_a_list_that_was_cut_by_a_kill_blocks_nobody(repository, draw):
    (repository / ".dvc/tmp").mkdir(exist_ok=True)
    (repository / ".dvc/tmp/rwlock").write_text('{"read": {"/so')

    assert bring_up(draw) == "Ran"


def test_who_lives_stays_in_the_list_and_who_died_does_not(repository):
    words = ["-c", "import sys; sys.stdin.read()", "repro", "train"]
    with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE) as reader:
        noted = note(repository, reader.pid, "dvc repro train")
        locks.strike_out_the_dead()
        assert listed(repository) == noted
        reader.kill()
        reader.wait(20)

    locks.strike_out_the_dead()
    assert listed(repository) == {}
