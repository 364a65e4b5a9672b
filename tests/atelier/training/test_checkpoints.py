import errno

import pytest
import torch

from atelier.errors import DiskError
from atelier.training import checkpoints


def state(value):
    return {"weight": torch.full((3,), float(value)), "step": torch.tensor(value)}


def test_the_newest_comes_back(tmp_path):
    for step in (2, 4):
        checkpoints.save(tmp_path, step, state(step), kept=2)

    step, tensors = checkpoints.newest(tmp_path)

    assert step == 4
    assert torch.equal(tensors["weight"], torch.full((3,), 4.0))


def test_nothing_comes_back_from_an_absent_folder(tmp_path):
    assert checkpoints.newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_last_few_are_kept(tmp_path, kept):
    for step in (1, 2, 3, 4):
        checkpoints.save(tmp_path, step, state(step), kept=kept)

    steps = sorted(path.name[:13] for path in tmp_path.iterdir())
    assert steps == [f"step-0000000{step}" for step in (1, 2, 3, 4)][-kept:]


@pytest.mark.parametrize("harm", ["truncated", "one bit", "empty"])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, harm):
    for step in (2, 4):
        checkpoints.save(tmp_path, step, state(step), kept=2)
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    if harm == "truncated":
        content = content[:-5]
    elif harm == "one bit":
        content[-3] ^= 1
    elif harm == "empty":
        content = bytearray()
    newest.write_bytes(content)

    with pytest.warns(UserWarning, match=r"is damaged and was set aside .* checkpoint before"):
        step, tensors = checkpoints.newest(tmp_path)

    assert step == 2
    assert torch.equal(tensors["weight"], torch.full((3,), 2.0))
    assert newest.with_suffix(".damaged").exists()


def test_a_training_that_goes_on_with_other_kernels_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "kernels", lambda: "torch 9 on another processor")
    checkpoints.save(tmp_path, 2, state(2), kept=2)
    monkeypatch.undo()

    with pytest.warns(
        UserWarning, match=r"with torch 9 on another .*, this machine has torch .*digits"
    ):
        step, tensors = checkpoints.newest(tmp_path)

    assert step == 2
    assert torch.equal(tensors["weight"], torch.full((3,), 2.0))


def test_a_checkpoint_says_which_processor_and_how_many_threads(tmp_path):
    checkpoints.save(tmp_path, 2, state(2), kept=2)

    (file,) = tmp_path.iterdir()
    assert torch.__version__ in checkpoints.kernels()
    assert checkpoints.kernels().encode() in file.read_bytes()


def test_a_full_disk_says_so_and_leaves_the_last_good_one(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 2, state(2), kept=2)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="the disk is full; free some space and run the same"):
        checkpoints.save(tmp_path, 4, state(4), kept=2)

    assert checkpoints.newest(tmp_path)[0] == 2
    assert len(list(tmp_path.iterdir())) == 1
