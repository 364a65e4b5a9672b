import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAMILIES = ("sdxl", "z_image", "flux")
OBJECTIVES = ("cpo-s", "dpo", "nft")
MARKS = "<!-- bench: gpu_counts -->\n<!-- end -->\n<!-- bench: gpu_step -->\n<!-- end -->\n"


def run(*words, code="", script="", fails=False):
    """Run the command in a process of its own: it forks, which no test process may."""
    script = script or f"{code}\nfrom benchmarks import gpu_step\ngpu_step.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr
    return done


def rows(table):
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return cells[0], {row[0]: row for row in cells[2:]}


@pytest.fixture
def document(tmp_path):
    file = tmp_path / "performance.md"
    file.write_text(MARKS)
    return file


def test_nine_cases_and_the_flags_of_one_are_measured_written_and_shown(tmp_path, document):
    out = tmp_path / "found.json"

    said = run(
        "--size", "toy", "--steps", 2, "--warm-up", 1, "--flags", "adamw-fused",
        "checkpointing", "flash", "fp8", "--out", out, "--document", document,
    ).stdout  # fmt: skip

    found = json.loads(out.read_text())
    steps = {(one["family"], one["objective"], one["flag"]): one for one in found["steps"]}
    plain = {key: one for key, one in steps.items() if not key[2]}
    assert set(plain) == {(f, o, "") for f in FAMILIES for o in OBJECTIVES}
    assert len(steps) == len(found["steps"]) == 9 + 3 * 4
    for one in plain.values():
        assert one["failure"] is None
        assert (one["steps"], one["batch_images"], one["pixels"]) == (2, 2, 64)
        assert one["tflops"] * 1e12 * one["seconds_per_image"] > 0
        assert one["mfu"] is None  # a CPU has no data sheet here
        assert one["matrix_share"] == pytest.approx(one["tflops"] / found["matrix_tflops"])
    for family in FAMILIES:
        # FLOPs of an image follow from the passes: those of CPO-S are one frozen pass more.
        made = {
            name: one["tflops"] * one["seconds_per_image"]
            for name, one in ((o, plain[family, o, ""]) for o in OBJECTIVES)
        }
        assert made["dpo"] == pytest.approx(made["nft"])
        assert 1.1 < made["cpo-s"] / made["dpo"] < 1.4
        again = steps[family, "cpo-s", "gradient_checkpointing: false"]
        assert again["tflops"] * again["seconds_per_image"] < made["cpo-s"]
        fused = steps[family, "cpo-s", "optimizer: adamw-fused"]
        assert fused["seconds_per_image"] > 0
    # What cannot be had is a line: SDXL's network asks torch alone.
    refused = steps["sdxl", "cpo-s", "attention: flash"]
    assert refused["seconds_per_image"] is None
    assert "UNet2DConditionModel lets torch choose" in refused["failure"]
    assert said in document.read_text()
    heads, lines = rows(said)
    assert heads[6] == "MFU"
    assert len(lines) == len(steps)
    assert lines["SDXL: CPO-S, `attention: flash`"][2].startswith("failed: ParamsError: ")
    fused = lines["FLUX.1: CPO-S, `optimizer: adamw-fused`"]
    assert float(fused[-1]) > 0
    assert lines["FLUX.1: DiffusionNFT"][-1] == "–"


def test_a_case_that_ends_its_process_is_a_line_and_the_rest_go_on(tmp_path):
    out = tmp_path / "found.json"
    deadly = """
import os
from atelier.objectives.dpo import DPO
DPO.step = lambda self, setup: os._exit(3)
"""
    run(
        "--size", "toy", "--steps", 1, "--warm-up", 1, "--families", "sdxl", "--flags",
        "--out", out, code=deadly,
    )  # fmt: skip

    failures = {
        one["objective"]: one["failure"] for one in json.loads(out.read_text())["steps"]
    }
    assert failures == {"cpo-s": None, "dpo": "its process ended (exit 3)", "nft": None}


def test_a_case_that_goes_on_beyond_its_time_is_stopped(tmp_path):
    out = tmp_path / "found.json"
    endless = """
import time
from atelier.objectives.dpo import DPO
from benchmarks import gpu_cases
gpu_cases._GRACE = 1.0
DPO.step = lambda self, setup: time.sleep(10**6)
"""
    run(
        "--size", "toy", "--minutes", 0.1, "--families", "sdxl", "--objectives", "dpo", "nft",
        "--flags", "--out", out, code=endless,
    )  # fmt: skip

    failures = {
        one["objective"]: one["failure"] for one in json.loads(out.read_text())["steps"]
    }
    assert failures == {
        "dpo": "stopped: it went on beyond its time", "nft": "no time was left",
    }  # fmt: skip


def test_a_slow_case_stops_with_the_steps_it_has():
    script = """
import torch
from benchmarks import gpu_cases, gpu_step
case = gpu_step._case(gpu_step.parse(["--size", "toy", "--out", "x"]), "flux", "cpo-s")
weight = torch.nn.Parameter(torch.ones(3))
clock = gpu_cases._Clock("cpu", warm_up=2, most=100, until=float("inf"))

def step(number, measure, part):
    if number == 6:
        clock.until = 0.0
    return weight.square().sum(), {}

clock.time({"w": weight}, step, gpu_cases.settings(case))
print(clock.steps, clock.seconds > 0)
late = gpu_cases._Clock("cpu", warm_up=2, most=100, until=0.0)
try:
    late.time({"w": weight}, step, gpu_cases.settings(case))
except TimeoutError as error:
    print(error)
"""
    said = run(script=script).stdout.splitlines()

    assert said[0] == "5 True"  # of the seven steps two are the warm-up
    assert said[1].startswith("no step was timed, the warm-up took ")


def counted(document, *words):
    said = run("--count-only", "--document", document, *words).stdout
    assert said in document.read_text()
    _, lines = rows(said)
    assert len(lines) == 9
    return lines


def test_counting_shows_the_nine_cases(document):
    for name, row in counted(document, "--size", "toy").items():
        needed, made = float(row[4]), float(row[5])
        assert 0 < needed < made, name


@pytest.mark.slow
def test_counting_at_full_size_counts_the_published_networks(document):
    lines = counted(document)

    weights = {name.split(":")[0]: row[1] for name, row in lines.items()}
    assert weights == {
        "SDXL": "2,567,463,684", "Z-Image": "6,154,908,736", "FLUX.1": "11,901,408,320"
    }  # fmt: skip
    for name, row in lines.items():
        frozen, passes = float(row[2]), row[3]
        count = {"CPO-S": 2}.get(name.split(": ")[1], 1)
        assert passes == f"{count}, and 1 with its gradient"
        # A pass with a gradient costs two or three, for the base has no gradient of its own.
        needed, made = float(row[4]), float(row[5])
        assert (count + 1.9) * frozen < needed < (count + 3) * frozen
        assert needed + 0.5 * frozen < made < needed + 1.1 * frozen


@pytest.mark.slow
def test_what_another_machine_wrote_is_taken_with_its_rates(tmp_path, document):
    written, out = tmp_path / "there.json", tmp_path / "here.json"
    step = {
        "family": "sdxl", "objective": "cpo-s", "policy_passes": 1, "frozen_passes": 2,
        "flag": "", "batch_images": 8, "images_at_once": None, "pixels": 1024, "rank": 64,
        "precision": "bf16", "optimizer": "adamw", "gradient_checkpointing": True,
        "compile": False, "attention": None, "quantise": None, "steps": 10,
        "seconds_per_image": 0.1, "peak_memory_gb": 20.0,
    }  # fmt: skip
    written.write_text(
        json.dumps(
            {"device": "NVIDIA H200", "torch": "2", "size": "full", "matrix_tflops": 780.0,
             "steps": [step]}
        )
    )  # fmt: skip

    said = run("--read", written, "--out", out, "--document", document).stdout

    (found,) = json.loads(out.read_text())["steps"]
    # 34.1 TFLOP are made of an image, 28.8 needed: the policy's pass is made twice.
    assert found["tflops"] == pytest.approx(341, rel=0.01)
    assert found["matrix_share"] == pytest.approx(341 / 780, rel=0.01)
    assert found["mfu"] == pytest.approx(288 / 989, rel=0.01)
    assert "Measured on NVIDIA H200" in said
    assert said in document.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--size full needs a CUDA device"),
        (["--size", "toy"], "--size toy needs --out"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message):
    assert message in run(*words, fails=True).stderr
