"""A disk that is full, read-only, or gives back other bytes than were written."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults import workshop

TOLD = "one sentence with the cure, no traceback; what was there stayed; "
ON = "the same bytes as undisturbed once there was space"


def sh(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def small_disk(folder, kilobytes):
    """Lay a file system of so many kilobytes under ``folder``; what was in it goes along."""
    before = folder.with_name(f"{folder.name}-before")
    if folder.exists():
        folder.rename(before)
    folder.mkdir(parents=True)
    done = sh("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        if before.exists():
            shutil.copytree(before, folder, dirs_exist_ok=True)
        yield folder
    finally:
        sh("umount", "-l", str(folder))


@contextlib.contextmanager
def read_only(folder):
    """Let nobody write below ``folder``, root included."""
    for words in (("--bind", str(folder), str(folder)), ("-o", "remount,ro,bind", str(folder))):
        done = sh("mount", *words)
        if done.returncode:
            sh("umount", "-l", str(folder))
            pytest.skip(f"nothing can be mounted read-only here: {done.stderr.strip()}")
    try:
        yield
    finally:
        sh("umount", "-l", str(folder))


def enlarge(folder):
    assert sh("mount", "-o", "remount,size=64m", str(folder)).returncode == 0


def failing(folder, stage):
    """Run a stage that fails by the disk; return the sentence it said."""
    process = workshop.start(folder, "-m", "dvc", "repro", "--single-item", stage)
    assert process.wait(900) != 0
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said, said[-4000:]
    (told,) = (line for line in said.splitlines() if line.startswith("Error: "))
    return told


def expect_undisturbed(folder, undisturbed, stage):
    workshop.repro(stage, folder)
    right = workshop.outputs(undisturbed / "after", stage)
    assert workshop.outputs(folder, stage) == right
    assert workshop.leftovers(folder) == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("stage", "where", "kilobytes", "what"),
    [
        ("annotate", "artifacts/resume", 4, "the journal of `annotate`"),
        ("annotate", "artifacts/annotate", 16, "the judgements of `annotate`"),
        ("sft", "artifacts/cache", 8, "the cache of latents"),
        ("sft", "artifacts/resume", 64, "a checkpoint of `sft`"),
        ("generate", "artifacts/resume", 64, "the pictures of `generate`"),
        ("report", "artifacts/report", 64, "the report"),
    ],
)
def test_a_full_disk(undisturbed, tmp_path, figure, stage, where, kilobytes, what):
    folder = workshop.copied(undisturbed, stage, tmp_path / "here")
    before = workshop.outputs(folder)

    with small_disk(folder / where, kilobytes) as disk:
        told = failing(folder, stage)
        assert "could not be written: the disk is full; free some space" in told
        kept = workshop.outputs(folder)
        earlier = workshop.STAGES[: workshop.STAGES.index(stage)]
        assert {k: v for k, v in kept.items() if k.split("/")[1] in earlier} == before
        enlarge(disk)
        expect_undisturbed(folder, undisturbed, stage)

    figure("Disk", f"full at {what}", 1, TOLD + ON)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("stage", "where"),
    [
        ("annotate", "artifacts/resume"),
        ("sft", "artifacts/cache"),
        ("report", "artifacts/report"),
    ],
)
def test_artifacts_that_nobody_may_write(undisturbed, tmp_path, figure, stage, where):
    folder = workshop.copied(undisturbed, stage, tmp_path / "here")
    (folder / where).mkdir(parents=True, exist_ok=True)

    with read_only(folder / where):
        told = failing(folder, stage)
    assert "could not be written: the file system is read-only; mount it writable" in told
    expect_undisturbed(folder, undisturbed, stage)

    figure(
        "Disk", f"`{where}` read-only at `{stage}`", 1, TOLD + "the same bytes once writable"
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "gone",
    [
        "artifacts/annotate/images.jsonl",
        "artifacts/sft/pytorch_lora_weights.safetensors",
        "artifacts/report/metrics.json",
    ],
)
def test_a_file_deleted_behind_its_back_comes_back(undisturbed, tmp_path, figure, gone):
    folder = tmp_path / "here"
    shutil.copytree(undisturbed / "after", folder)
    stage = Path(gone).parts[1]
    (folder / gone).unlink()

    workshop.repro(stage, folder)

    right = workshop.outputs(undisturbed / "after", stage)
    assert workshop.outputs(folder, stage) == right
    figure("Disk", f"`{gone}` deleted", 1, "`dvc repro` brought back the same bytes")


def flip(file, *places):
    """Turn a bit at each place of a file; its time stays, as when a disk dies."""
    content = bytearray(file.read_bytes())
    for place in places:
        content[place] ^= 1
    mode, times = file.stat().st_mode, (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.chmod(0o644)
    file.write_bytes(content)
    os.utime(file, ns=times)
    file.chmod(mode)


def _of_each_tensor(shard):
    """Where each tensor of a safetensors file begins."""
    content = shard.read_bytes()
    body = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:body])
    return [
        body + tensor["data_offsets"][0]
        for name, tensor in tensors.items()
        if name != "__metadata__"
    ]


@pytest.mark.timeout(1200)
def test_a_bit_flipped_in_a_cache_entry(undisturbed, tmp_path, figure):
    folder = workshop.copied(undisturbed, "cpo", tmp_path / "here")
    shards = sorted((folder / "artifacts/cache").glob("latents-*/*.safetensors"))
    flip(shards[0], 20)  # its header

    said = workshop.repro("cpo", folder)

    assert "was corrupted on disk, and is removed" in said
    right = workshop.outputs(undisturbed / "after", "cpo")
    assert workshop.outputs(folder, "cpo") == right
    figure(
        "Disk", "a bit flipped in a cache's header", 1, "told; encoded again; the same bytes"
    )


@pytest.mark.timeout(1200)
def test_a_bit_flipped_in_a_cached_tensor(undisturbed, tmp_path, figure):
    folder = workshop.copied(undisturbed, "cpo", tmp_path / "here")
    shards = sorted((folder / "artifacts/cache").glob("latents-*/*.safetensors"))
    flip(shards[0], *_of_each_tensor(shards[0]))  # which of them are drawn is chance

    process = workshop.start(folder, "-m", "dvc", "repro", "--single-item", "cpo")
    assert process.wait(900) != 0
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said
    assert "was corrupted on disk, and is removed; run the same command again" in said
    expect_undisturbed(folder, undisturbed, "cpo")
    figure(
        "Disk",
        "a bit flipped in each of the cached tensors",
        1,
        "told and removed; run again: the same bytes",
    )


@pytest.mark.timeout(1200)
def test_a_bit_flipped_in_the_newest_checkpoint(undisturbed, tmp_path, figure):
    folder = workshop.copied(undisturbed, "sft", tmp_path / "here")
    process = workshop.start(folder, "-m", "dvc", "repro", "--single-item", "sft")
    resumed = folder / "artifacts/resume"
    while process.poll() is None and len(list(resumed.glob("*/step-*.safetensors"))) < 2:
        pass
    assert workshop.kill(process, 0), "it ended before it was killed"
    newest = sorted(resumed.glob("*/step-*.safetensors"))[-1]
    flip(newest, -1)

    said = workshop.repro("sft", folder)

    assert "is damaged and was set aside" in said
    assert workshop.outputs(folder, "sft") == workshop.outputs(undisturbed / "after", "sft")
    assert workshop.leftovers(folder) == []
    figure(
        "Disk",
        "a bit flipped in the newest checkpoint",
        1,
        "told; trained on from the one before; the same bytes",
    )


@pytest.mark.timeout(1200)
def test_a_bit_flipped_in_the_teacher(undisturbed, tmp_path, figure):
    folder = workshop.copied(undisturbed, "cpo", tmp_path / "here")
    flip(folder / "artifacts/sft/pytorch_lora_weights.safetensors", -1)

    process = workshop.start(folder, "-m", "dvc", "repro", "--single-item", "cpo")
    assert process.wait(900) != 0
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said
    (told,) = (line for line in said.splitlines() if line.startswith("Error: "))
    assert "is damaged" in told
    assert "dvc repro sft" in told
    shutil.rmtree(folder / "artifacts/sft")
    workshop.repro("sft", folder)
    expect_undisturbed(folder, undisturbed, "cpo")
    figure(
        "Disk",
        "a bit flipped in θ1, its time kept",
        1,
        "`cpo` refuses it and names the cure; after that the same bytes",
    )
