"""The same params, data and code twice: the same bytes, or how far from them."""

import json
import math
import shutil

import pytest
import safetensors.torch
import torch
import yaml

from tests.faults import workshop

WEIGHTS = (
    "artifacts/sft/pytorch_lora_weights.safetensors",
    "artifacts/cpo/cpo-s/pytorch_lora_weights.safetensors",
    "artifacts/cpo/cpo/pytorch_lora_weights.safetensors",
)
THREADS = 2
STEPS = 6
FARTHEST = 0.01  # of a LoRA's length, by another order of sums alone
PIPELINE = ["-m", "dvc", "repro"]


@pytest.mark.timeout(2400)
def test_two_folders_the_same_bytes(undisturbed, tmp_path, figure):
    folder = workshop.build(tmp_path / "another")

    workshop.python(folder, *PIPELINE)

    found, right = workshop.outputs(folder), workshop.outputs(undisturbed / "after")
    assert sorted(found) == sorted(right)
    assert [name for name in found if found[name] != right[name]] == []
    base = [path.read_bytes() for path in sorted((folder / "base/toy").rglob("*.safetensors"))]
    assert base == [
        path.read_bytes()
        for path in sorted((undisturbed / "after/base/toy").rglob("*.safetensors"))
    ]
    figure(
        "Determinism",
        "the base and the whole pipeline in another folder",
        2,
        f"all {len(found)} artifacts the same bytes, metrics.json, pictures and weights among "
        "them",
    )


@pytest.mark.timeout(2400)
def test_another_number_of_threads_moves_last_digits_at_most(tmp_path, figure):
    one, other = workshop.build(tmp_path / "one"), tmp_path / "other"
    file = one / "params/toy.yaml"
    values = yaml.safe_load(file.read_text())
    # Toys are too small for threads to share their sums: the starter's base is not.
    values["model"] |= {"source": "base/starter", "pixels": 128, "text_tokens": 32}
    values["base"] = None
    for stage in ("sft", "cpo"):
        values[stage]["training"] |= {"steps": STEPS, "batch_images": 2}
    file.write_text(yaml.safe_dump(values))
    shutil.copytree(one, other)

    workshop.python(one, *PIPELINE)
    workshop.python(other, *PIPELINE, OMP_NUM_THREADS=str(THREADS))

    for stage in ("annotate", "split"):  # no sums that threads share
        assert workshop.outputs(other, stage) == workshop.outputs(one, stage)
    farthest = max(_distance(other / name, one / name) for name in WEIGHTS)
    assert farthest < FARTHEST  # 0 where the processor's kernels share these sums alike
    moved = max(_changes(other, one).values())
    assert math.isfinite(moved)
    figure(
        "Determinism",
        f"the starter's base, {STEPS} steps each of θ1 and θ, by {THREADS} threads in place of "
        "one",
        1,
        "annotate and split the same bytes; no LoRA farther from the other than "
        f"{_rounded(farthest)} of its length; no number of metrics.json moved by more than "
        f"{_rounded(moved)}",
    )


def _distance(one, other):
    """|a - b| / |b| over all of a file's weights."""
    a, b = (
        torch.cat(
            [t.double().flatten() for _, t in sorted(safetensors.torch.load_file(f).items())]
        )
        for f in (one, other)
    )
    return float((a - b).norm() / b.norm())


def _changes(folder, right):
    """By how much each number of metrics.json differs, by its name."""
    found, wanted = (
        _numbers(here / "artifacts/report/metrics.json") for here in (folder, right)
    )
    assert found.keys() == wanted.keys()
    return {name: abs(value - wanted[name]) for name, value in found.items()}


def _numbers(file):
    return {
        f"{painter}.{name}": value
        for painter, row in json.loads(file.read_text()).items()
        for name, value in row.items()
        if isinstance(value, int | float)
    }


def _rounded(value):
    """Up to a power of ten: a bound that the next machine is likely to keep, too."""
    return "0" if value == 0 else f"1e{math.ceil(math.log10(value))}"
