import json
import os

import pytest

from atelier import checksums

LONG_AGO = 1_700_000_000


@pytest.fixture
def hashed(monkeypatch):
    """The files whose bytes were read."""
    found, sha256 = [], checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda path: found.append(path) or sha256(path))
    monkeypatch.setattr(checksums, "_LARGE", 4)
    return found


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"many bytes")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_a_large_file_is_hashed_once_by_all_processes(large, tmp_path, hashed):
    memory = tmp_path / "cache/checksums.json"

    found = [checksums.remembered(large, memory) for _ in range(3)]

    assert set(found) == {checksums.sha256(large)}
    assert hashed == [large, large]  # once by `remembered`, once by this test
    assert found[0] in memory.read_text()


def test_another_size_or_time_of_change_is_another_file(large, tmp_path, hashed):
    memory = tmp_path / "checksums.json"
    before = checksums.remembered(large, memory)

    large.write_bytes(b"more bytes than before")
    os.utime(large, (LONG_AGO, LONG_AGO))
    longer = checksums.remembered(large, memory)
    large.write_bytes(b"MORE bytes than before")
    os.utime(large, (LONG_AGO, LONG_AGO + 1))

    assert len({before, longer, checksums.remembered(large, memory)}) == 3


def test_a_file_that_has_just_changed_is_not_remembered(large, tmp_path, hashed):
    memory = tmp_path / "checksums.json"
    os.utime(large)  # now: it could change again within the clock's resolution

    checksums.remembered(large, memory)

    assert not memory.exists()


@pytest.mark.parametrize("content", ["", "{torn", "[]", json.dumps({"else": [1, 2, 3, "x"]})])
def test_a_torn_memory_costs_one_reading(large, tmp_path, hashed, content):
    memory = tmp_path / "checksums.json"
    memory.write_text(content)

    checksums.remembered(large, memory)
    hashed.clear()
    checksums.remembered(large, memory)

    assert hashed == []


def test_small_files_are_hashed_each_time(large, tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(checksums, "_LARGE", 1000)

    for _ in range(2):
        checksums.remembered(large, tmp_path / "memory")

    assert hashed == [large, large]
    assert not (tmp_path / "memory").exists()
