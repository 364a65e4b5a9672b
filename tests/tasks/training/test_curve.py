import errno
from pathlib import Path

import pytest

from atelier.errors import DiskError
from atelier.reporting import silent
from tasks.training.curve import Curve


class Nobody:
    def metrics(self, values, step=None): ...


def curve(folder):
    return Curve(folder, silent, Nobody())


def test_a_line_that_a_kill_cut_does_not_swallow_the_next_one(tmp_path):
    curve(tmp_path).report(1, {"loss": 0.5}, {})
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')

    second = curve(tmp_path)
    assert second.rows() == [{"loss": 0.5}]
    for step in (2, 3):
        second.report(step, {"loss": 1 / step}, {})
    third = curve(tmp_path)

    third.write(tmp_path / "curve.tsv")
    assert (tmp_path / "curve.tsv").read_text() == ("step\tloss\n1\t0.5\n2\t0.5\n3\t0.333333\n")


def test_a_full_disk_is_told_in_a_sentence(tmp_path, monkeypatch):
    def full(*words, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskError, match=r"curve.jsonl could not be written: the disk is full"):
        curve(tmp_path).report(1, {"loss": 0.5}, {})
