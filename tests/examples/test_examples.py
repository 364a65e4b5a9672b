"""The scripts of examples/, run as a person would; README.md's lines for plain diffusers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(*words, folder, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def size(file):
    with Image.open(file) as picture:
        return picture.size


def numbers(line):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_every_example_is_tested_here_and_imports_a_few_names():
    own = Path(__file__).read_text()
    for file in EXAMPLES.glob("*.py"):
        imports = re.findall(r"^(?:from atelier|import atelier).*", file.read_text(), re.M)
        assert len(imports) <= 4, file.name
        assert f'"{file.name}"' in own


def test_pictures_are_judged_by_criteria(tmp_path, paint):
    drawn = run(EXAMPLES / "judge_pictures.py", folder=tmp_path)
    own = run(EXAMPLES / "judge_pictures.py", paint(tmp_path / "a.png"), folder=tmp_path)

    assert drawn[0] == "7 of 7 criteria have a measure"
    assert "1: an abstract in orange" in drawn
    assert "  negative 0.97  composition/balance: lopsided weight" in drawn
    assert own[1] == "a.png"
    assert len(own) > 5


def test_cpo_runs_on_while_cpo_s_stops_at_its_fixed_point(tmp_path):
    lines = run(EXAMPLES / "cpo_step.py", folder=tmp_path)
    table = {line[:12].strip(" :"): line for line in lines}
    places = [numbers(line)[1] for line in lines if line.startswith("  step")]

    # win + omega (win - lose) = 0.5 + 2 * 0.75 / 2: the mirror of lose at win, half the way
    assert numbers(lines[-1]) == [1.25]
    assert places[:4] == sorted(set(places[:4]))  # CPO: further at every look
    assert places[5:] == [1.25] * 3
    assert table


def test_theta_is_trained_in_memory_and_plain_diffusers_paints_with_it(tmp_path):
    lines = run(
        EXAMPLES / "train_theta.py", "--sft", 2, "--cpo", 2, "--pictures", 8, "--batch", 4,
        "--out", tmp_path / "artifacts/cpo/cpo-s", folder=tmp_path,
    )  # fmt: skip

    assert [line.split()[0] for line in lines] == [
        "θ1:",
        "θ:",
        "base",
        "theta1",
        "cpo-s",
        "written:",
    ]
    (tmp_path / "base").symlink_to(ROOT / "base")
    (program,) = (b for b in BLOCK.findall(text("README.md")) if "load_lora_weights" in b)
    (tmp_path / "plain.py").write_text(program)
    run("-I", "plain.py", folder=tmp_path)
    assert size(tmp_path / "landscape.png") == (128, 128)


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_two_sets_of_pictures_are_compared(tmp_path):
    good, half, between = run(EXAMPLES / "compare_pictures.py", folder=tmp_path)

    assert numbers(good)[2] < numbers(half)[1]  # the intervals of #A_neg do not meet
    fid, _ = numbers(between)
    assert fid > 5


@pytest.mark.slow
def test_a_registered_model_paints(studio, notebook, mlflow_tables):
    from tasks import cpo, sft
    from tasks.run import paths
    from tasks.tracking import connection, registry

    sft.run(studio, notebook)
    cpo.run(studio, notebook)
    outs = {"sft": f"artifacts/sft/{registry.LORA}", "cpo": "artifacts/cpo"}
    stages = {name: {"cmd": "true", "outs": [out]} for name, out in outs.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for words in (["init", "--no-scm"], ["commit", "-f"]):
        subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], check=True)
    shutil.copytree(EXAMPLES, "examples")
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    shutil.copy(mlflow_tables, paths.MLFLOW)
    registry.run()
    (version, *_) = connection.client().search_model_versions("name = 'atelier-toy-theta'")

    lines = run(
        Path("examples").resolve() / "registered_model.py",
        f"models:/atelier-toy-theta/{version.version}",
        "a sea",
        folder=Path.cwd(),
    )

    (line,) = [one for one in lines if one.startswith("a sea: ")]
    assert size(line.removeprefix("a sea: ")) == (32, 32)
