import importlib.util
import json
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks/gpu_step.py"


def _loaded():
    # Some package of the environment installs a `benchmarks` of its own.
    spec = importlib.util.spec_from_file_location("gpu_step", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_step = _loaded()


@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_the_benchmark_runs_at_toy_size_and_its_figures_agree(family, tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["--family", family, "--size", "toy", "--pixels", "64", "--batch", "2"]

    gpu_step.main(
        [*words, "--steps", "3", "--warm-up", "1", "--rank", "2", "--precision", "fp32",
         "--checkpointing", "--out", str(out)]
    )  # fmt: skip

    found = json.loads(out.read_text())
    assert found["steps"] == 3
    assert found["trained"] > 0
    assert found["images_per_second"] == pytest.approx(2 / found["step_seconds"])
    rate = found["flops_per_step"] / found["step_seconds"]
    assert found["tflops_per_second"] == pytest.approx(rate / 1e12)
    assert found["share_of_peak"] == pytest.approx(rate / found["matrix_peak_tflops"] / 1e12)
    assert f"{family} toy, batch 2: " in capsys.readouterr().out


def test_flops_are_those_of_the_passes(tmp_path):
    # θ1's two passes and the policy's one cost three forward passes; its gradient costs more
    # than one and less than two again, since the base has none.
    asked = gpu_step.parse(
        ["--family", "flux", "--size", "toy", "--pixels", "64", "--batch", "2",
         "--precision", "fp32", "--out", "x"]
    )  # fmt: skip
    forward = asked.batch * gpu_step.count(asked)["forward_tflops"] * 1e12
    asked.steps, asked.warm_up = 1, 1
    found = gpu_step.measure(asked)

    assert 4 * forward < found["flops_per_step"] < 6.5 * forward


def test_counting_alone_runs_nothing_and_counts_the_same(tmp_path):
    out = tmp_path / "found.json"
    words = ["--family", "flux", "--size", "toy", "--pixels", "64", "--batch", "1",
             "--precision", "fp32", "--rank", "2"]  # fmt: skip

    gpu_step.main([*words, "--count-only", "--out", str(out)])

    counted = json.loads(out.read_text())
    asked = gpu_step.parse([*words, "--steps", "1", "--warm-up", "1", "--out", "x"])
    # θ1's adapter is a little more.
    assert counted["step_tflops_per_image"] * 1e12 == pytest.approx(
        gpu_step.measure(asked)["flops_per_step"], rel=0.05
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_full_size_asks_for_a_device(capsys):
    with pytest.raises(SystemExit):
        gpu_step.parse(["--family", "sdxl", "--out", "x"])

    assert "--size full needs a CUDA device" in capsys.readouterr().err


def test_the_networks_of_full_size_are_the_published_ones():
    for family, weights in (("sdxl", 2_567_463_684), ("flux", 11_901_408_320)):
        network = gpu_step.full(family, torch.device("meta"), torch.bfloat16)
        assert sum(parameter.numel() for parameter in network.parameters()) == weights
