import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from atelier.errors import ArtifactError
from atelier.reporting import silent
from atelier.training import cache

KEYS = [f"{number:03d}" for number in range(200)]


def encode(keys):
    return {"value": torch.tensor([[float(key), 1 / (1 + int(key))] for key in keys])}


def values(found, keys):
    return cache.Column([(found, key) for key in keys], "value")[torch.arange(len(keys))]


def only_shard(folder):
    (shard,) = folder.glob("*.safetensors")
    return shard


def test_rows_are_read_back_as_they_were_written(tmp_path):
    cache.filled(tmp_path, KEYS, encode, batch=7, report=silent)

    found = cache.filled(tmp_path, KEYS, None, batch=7, report=silent)

    assert torch.equal(values(found, ["003", "150"]), encode(["003", "150"])["value"])
    assert found.names("003") == ["value"]


def test_a_finished_cache_is_opened_without_reading_its_tensors(tmp_path, monkeypatch):
    cache.filled(tmp_path, KEYS, encode, batch=7, report=silent)
    monkeypatch.setattr(cache, "_opened", None)

    found = cache.filled(tmp_path, KEYS, None, batch=7, report=silent)

    assert all(key in found for key in KEYS)


def test_an_entry_is_looked_up_a_few_times_however_many_there_are(tmp_path, monkeypatch):
    asked = []
    there = cache.Cache.__contains__
    monkeypatch.setattr(
        cache.Cache, "__contains__", lambda self, key: (asked.append(key), there(self, key))[1]
    )
    told = []

    cache.filled(tmp_path, KEYS, encode, batch=1, report=lambda done, values: told.append(done))

    assert len(asked) <= 4 * len(KEYS)
    assert told == sorted(told)
    assert told[-1] == len(KEYS)


@pytest.mark.parametrize("exact", [torch.bfloat16, torch.float16, torch.float32])
def test_what_a_half_precision_encoder_made_takes_half_the_disk_and_loses_nothing(
    exact, tmp_path
):
    made = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0)).to(exact).float()

    found = cache.filled(tmp_path, ["a"], lambda keys: {"value": made}, batch=1, report=silent)

    assert torch.equal(values(found, ["a"]), made)
    assert found.read("a", "value").dtype == torch.float32
    size = only_shard(tmp_path).stat().st_size
    assert size == pytest.approx(5000 * torch.finfo(exact).bits / 8, rel=0.05)


@pytest.mark.parametrize("damage", ["cut", "header", "emptied", "foreign"])
def test_a_damaged_shard_is_noticed_when_opened_and_made_again(damage, tmp_path):
    cache.filled(tmp_path, ["001"], encode, batch=1, report=silent)
    shard = only_shard(tmp_path)
    content = shard.read_bytes()
    shard.write_bytes(
        {
            "cut": content[:-1],
            "header": content[:20] + b"!" + content[21:],
            "emptied": b"",
            "foreign": b"\xff" * 100,
        }[damage]
    )

    with pytest.warns(UserWarning, match="corrupted on disk, and is removed; its entries"):
        again = cache.filled(tmp_path, ["001"], encode, batch=1, report=silent)

    assert torch.equal(values(again, ["001"]), encode(["001"])["value"])


@pytest.mark.parametrize("digest", ["xxh3", "sha256"])
def test_a_damaged_tensor_is_noticed_when_read_and_then_made_again(
    digest, tmp_path, monkeypatch
):
    if digest == "sha256":  # as shards of earlier versions
        monkeypatch.setattr(cache, "_quick", cache._digest)
    found = cache.filled(tmp_path, ["001", "002"], encode, batch=2, report=silent)
    assert torch.equal(values(found, ["002"]), encode(["002"])["value"])
    found = cache.Cache(tmp_path)  # as in another process, which checks again
    shard = only_shard(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ArtifactError, match="corrupted on disk, and is removed; run the same"):
        values(found, ["001", "002"])
    again = cache.filled(tmp_path, ["001", "002"], encode, batch=2, report=silent)

    assert torch.equal(values(again, ["001", "002"]), encode(["001", "002"])["value"])


def test_rows_of_two_types_are_read_together(tmp_path):
    made = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[1 / 3, 2.0]])}
    found = cache.filled(
        tmp_path, ["a", "b"], lambda keys: {"value": made[keys[0]]}, batch=1, report=silent
    )

    assert found.place("a", "value").dtype != found.place("b", "value").dtype
    assert torch.equal(values(found, ["b", "a", "b"]), torch.cat([made[k] for k in "bab"]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux fetches files uncopied")
def test_where_memory_has_room_shards_are_fetched_once_an_epoch(tmp_path, monkeypatch):
    found = cache.filled(tmp_path, KEYS, encode, batch=8, report=silent)
    fetched = []
    monkeypatch.setattr(cache, "_fetch", lambda shards: fetched.append(list(shards)))

    # What is counted are the bytes of the files, which have headers, too.
    whole = sum(shard.stat().st_size for shard in tmp_path.glob("*.safetensors"))
    epochs = whole // encode(KEYS)["value"].nbytes
    for _ in range(2 * epochs):
        values(found, KEYS)
    deadline = time.monotonic() + 10
    while len(fetched) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert len(fetched) == 2
    assert set(fetched[0]) == set(fetched[1]) == set(tmp_path.glob("*.safetensors"))


def test_where_memory_has_no_room_only_what_is_read_is_announced(tmp_path, monkeypatch):
    found = cache.filled(tmp_path, KEYS, encode, batch=8, report=silent)
    size = sum(shard.stat().st_size for shard in tmp_path.glob("*.safetensors"))
    free = SimpleNamespace(available=2 * size)
    monkeypatch.setattr(cache.psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(cache, "_fetch", None)
    announced = []
    monkeypatch.setattr(cache, "_announce", lambda file, start, count: announced.append(count))

    values(found, KEYS[:3])

    assert len(announced) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux fetches files uncopied")
def test_files_are_fetched_to_their_end_and_one_that_is_gone_ends_it_quietly(
    tmp_path, monkeypatch
):
    file = tmp_path / "a"
    file.write_bytes(bytes(1000))
    sent = []
    own = os.sendfile

    def sending(*asked):
        sent.append(own(*asked))
        return sent[-1]

    monkeypatch.setattr(cache.os, "sendfile", sending)
    monkeypatch.setattr(cache, "_FETCHED_AT_ONCE", 300)

    cache._fetch([file, tmp_path / "gone", file])

    assert sent == [300, 300, 300, 100, 0]


def test_a_single_process_lists_its_folder_once(tmp_path, monkeypatch):
    listed = []
    shards = cache._shards
    monkeypatch.setattr(cache, "_shards", lambda at: (listed.append(at), shards(at))[1])

    cache.filled(tmp_path, KEYS, encode, batch=4, report=silent)

    assert len(listed) == 1


def test_progress_counts_what_was_missing(tmp_path):
    cache.filled(tmp_path, KEYS[:10], encode, batch=4, report=silent)

    told = []
    cache.filled(tmp_path, KEYS[:16], encode, batch=4, report=lambda n, _: told.append(n))

    assert told[-1] == 6
    assert told == sorted(told)


def test_an_interrupted_cache_goes_on_where_it_was(tmp_path):
    def interrupted(keys):
        if "100" in keys:
            raise KeyboardInterrupt
        return encode(keys)

    with pytest.raises(KeyboardInterrupt):
        cache.filled(tmp_path, KEYS, interrupted, batch=8, report=silent)
    seen = []

    def counted(keys):
        seen.extend(keys)
        return encode(keys)

    found = cache.filled(tmp_path, KEYS, counted, batch=8, report=silent)

    assert seen == KEYS[64:]  # the first shard was whole
    assert torch.equal(values(found, KEYS), encode(KEYS)["value"])


BUILDER = """
import sys, time
from pathlib import Path
import torch
from atelier.reporting import silent
from atelier.training import cache
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
keys = [f"{number:03d}" for number in range(200)]
def encode(missing):
    for key in missing:
        print(key, flush=True)
    time.sleep(pause)
    return {"value": torch.tensor([[float(key), 1 / (1 + int(key))] for key in missing])}
print("ready", flush=True)
sys.stdin.readline()
found = cache.filled(folder, keys, encode, batch=8, report=silent)
rows = cache.Column([(found, key) for key in keys], "value")[torch.arange(200)]
assert rows[:, 0].sum() == 19900
"""


def build(folder, pause):
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(pause)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert builder.stdout.readline() == "ready\n"
    return builder


def test_two_processes_that_build_at_once_share_the_work(tmp_path):
    builders = [build(tmp_path, 0.03) for _ in range(2)]
    for builder in builders:
        builder.stdin.write("go\n")
        builder.stdin.flush()
    encoded = [builder.communicate(timeout=60)[0].split() for builder in builders]

    assert [builder.returncode for builder in builders] == [0, 0]
    assert sorted(encoded[0] + encoded[1]) == KEYS  # each once, by one of them
    assert all(encoded)


@pytest.mark.slow
def test_what_a_killed_process_had_claimed_is_taken_over(tmp_path):
    killed, survivor = build(tmp_path, 30), build(tmp_path, 0)
    killed.stdin.write("go\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "000\n"
    survivor.stdin.write("go\n")
    survivor.stdin.flush()
    while survivor.stdout.readline() != "199\n":
        pass
    time.sleep(0.5)  # it waits for the piece that the other claimed
    assert survivor.poll() is None

    os.kill(killed.pid, signal.SIGKILL)
    taken_over = survivor.communicate(timeout=60)[0].split()
    killed.communicate()

    assert survivor.returncode == 0
    assert taken_over == KEYS[:64]
