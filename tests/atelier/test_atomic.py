import errno
import os
import resource
import signal
from pathlib import Path

import pytest

from atelier import atomic
from atelier.errors import DiskError

FULL = Path("/dev/full")


def test_a_file_is_written_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"

    atomic.write(path, "words, also θ")

    assert path.read_text(encoding="utf-8") == "words, also θ"
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]


@pytest.fixture
def small_disk():
    """This process may not write files of more than 4096 bytes, as on a disk nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_file_that_grows_too_large_leaves_the_old_one(tmp_path, small_disk):
    path = tmp_path / "result.jsonl"
    atomic.write(path, "old")

    with pytest.raises(DiskError, match=r"result.jsonl could not be written: .*largest file"):
        atomic.write(path, b"x" * 10_000)

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.jsonl"]


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not write"),
    ],
)
def test_what_the_disk_refuses_at_the_last_moment_leaves_the_old_file(
    tmp_path, monkeypatch, code, cure
):
    path = tmp_path / "result.jsonl"
    atomic.write(path, "old")

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=cure):
        atomic.write(path, "new")

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.jsonl"]


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_speaks_through_the_block_that_guards_a_stream():
    with (
        pytest.raises(DiskError, match=r"journal.jsonl could not be written: the disk is full"),
        atomic.clear_disk_errors("journal.jsonl"),
        FULL.open("wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_parent_that_is_a_file_is_a_bug_or_a_disk_error_never_silent(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(OSError, match=r"exists|directory"):
        atomic.write(tmp_path / "file" / "inside", "x")
