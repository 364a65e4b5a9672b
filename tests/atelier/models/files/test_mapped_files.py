import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier.models.files import mapped_files

linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux")
MEGABYTES = 40


def resident_of_files():
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssFile")
    ]
    return int(line.split()[1]) / 1000


@linux
def test_the_pages_of_a_copied_tensor_are_given_back_and_read_again_if_need_be(tmp_path):
    weights = torch.randn(MEGABYTES * 250_000)
    save_file({"weights": weights}, tmp_path / "x.safetensors")
    tensor = load_file(tmp_path / "x.safetensors")["weights"]
    mapped = mapped_files.ranges()
    copied = tensor.clone()
    before = resident_of_files()

    assert mapped_files.let_go(tensor, mapped)

    assert before - resident_of_files() > 0.9 * MEGABYTES
    assert torch.equal(copied, weights)
    assert torch.equal(tensor, weights)


@linux
def test_memory_that_is_of_no_file_is_left_alone(tmp_path):
    save_file({"weights": torch.randn(MEGABYTES * 250)}, tmp_path / "x.safetensors")
    other = load_file(tmp_path / "x.safetensors")["weights"]
    own = torch.ones(MEGABYTES * 250_000)

    assert not mapped_files.let_go(own, mapped_files.ranges())

    assert torch.equal(own, torch.ones_like(own))
    assert len(other) == MEGABYTES * 250


@linux
def test_a_tensor_below_a_page_is_left_alone(tmp_path):
    save_file({"weights": torch.ones(3)}, tmp_path / "x.safetensors")
    tensor = load_file(tmp_path / "x.safetensors")["weights"]

    assert not mapped_files.let_go(tensor, mapped_files.ranges())
