import errno
import os
import resource
import signal
import subprocess
import sys
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


WRITING = """
import sys
from pathlib import Path
from atelier import atomic
with atomic.replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_had_begun_is_swept_and_what_another_writes_stays(tmp_path):
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path / "a" / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("killed", "living")
    )
    with killed, living:
        for process in (killed, living):
            assert process.stdout.readline() == b"writing\n"
        killed.kill()
        killed.wait(20)
        assert len(list((tmp_path / "a").iterdir())) == 2

        atomic.sweep(tmp_path)

        (left,) = (tmp_path / "a").iterdir()
        assert left.name.startswith(".living.")
        living.stdin.close()
        assert living.wait(20) == 0
    assert (tmp_path / "a/living").read_bytes() == b"half"


@pytest.fixture
def folder(tmp_path):
    """A folder with a small file, and one that is larger than ``small_disk`` takes."""
    for name, size in (("from/one", 4000), ("from/in/two", 4000), ("large/in/it", 10_000)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return tmp_path


def test_a_folder_is_copied_whole_or_not_at_all(folder, small_disk):
    (folder / "to.partial").mkdir()
    (folder / "to.partial/of a killed run").write_bytes(b"half")
    for _ in range(2):
        atomic.copy_tree(folder / "from", folder / "to")

    with pytest.raises(DiskError, match=r"to could not be written: .*largest file"):
        atomic.copy_tree(folder / "large", folder / "to")

    assert sorted(path.name for path in (folder / "to").rglob("*")) == ["in", "one", "two"]
    assert sorted(path.name for path in folder.iterdir()) == ["from", "large", "to"]
