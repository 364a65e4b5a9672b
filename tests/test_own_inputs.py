"""Inputs of one's own in a fresh clone: folders prepared for other trainers, and a base.

Nothing changes but the profile: no file is converted, renamed or moved by hand.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import TOY_BASE, TOY_NETWORKS, small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[1]
PICTURES = 24


def caption(number):
    return f"a sea at hour {number % 6}"


def kohya(place, paint):
    """Repeats and concept in the folders' names, a text beside each picture."""
    for number in range(PICTURES):
        folder = place / "data" / ("10_sea" if number % 2 else "5_sea at night/more")
        file = paint(folder / f"{number}.png", number, size=(40, 36))
        ending = ".caption" if number % 3 == 0 else ".txt"
        file.with_suffix(ending).write_text(f"{caption(number)}\n", encoding="utf-8")


def image_folder(place, paint):
    """A split's folder with a table of file names and texts, as datasets.load_dataset reads."""
    rows = []
    for number in range(PICTURES):
        paint(place / f"data/train/images/{number}.png", number)
        rows.append({"file_name": f"images/{number}.png", "text": caption(number)})
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (place / "data/train/metadata.jsonl").write_text(lines, encoding="utf-8")


def saved_to_disk(place, paint):
    """Parquet files with a column of pictures, outside of the repository."""
    rows = []
    for number in range(PICTURES):
        content = paint(place / "outside/one.png", number).read_bytes()
        rows.append({"image": {"bytes": content, "path": f"{number}.png"},
                     "text": caption(number)})  # fmt: skip
    (place / "outside/one.png").unlink()
    for part in range(2):
        table = pa.Table.from_pylist(rows[part::2])
        pq.write_table(table, place / f"outside/train-0000{part}-of-00002.parquet")


# The layout's name in `data check`, its setting, and what brings it into data/.
LAYOUTS = {
    "kohya": (kohya, None, []),
    "ImageFolder": (image_folder, "metadata.jsonl", []),
    "saved to disk": (saved_to_disk, "metadata.jsonl", ["atelier data unpack outside"]),
}


@pytest.fixture
def clone(tmp_path):
    if subprocess.run(["git", "clone", "-q", ROOT, "clone"], cwd=tmp_path).returncode:
        pytest.skip("this is no git repository")
    return tmp_path / "clone"


@pytest.fixture
def run(clone, capsys):
    """A function that takes one command in the clone, shows it, and returns what it printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "COLUMNS": "110",
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "new@example.org" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")},
    }  # fmt: skip

    def take(command):
        done = subprocess.run(
            command, shell=True, cwd=clone, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with capsys.disabled():
            sys.stdout.write(f"\n$ {command}\n{done.stdout[-3000:]}")
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-4000:]}"
        return done.stdout

    return take


def profile(captions):
    values = small_profile()
    values["annotate"]["captions"] = captions
    values["model"] |= {"source": "base/mine", "text_tokens": 16}
    values["base"] = {
        **yaml.safe_load(TOY_BASE),
        "network": yaml.safe_load(TOY_NETWORKS["flux"]),
        "training": {**values["sft"]["training"], "steps": 2},
    }
    values["split"] |= {"train": 0.6, "validation": 0.2, "test": 0.2}
    del values["cpo"]["objectives"]["cpo"]
    values["evaluate"] |= {"second_judge": None, "metrics": ["vendi"]}
    return values


def choose(clone, captions):
    (clone / "params/mine.yaml").write_text(yaml.safe_dump(profile(captions)))
    (clone / "params/profile.yaml").write_text("profile: mine\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_prepared_for_another_trainer_becomes_a_report(layout, clone, run, paint):
    prepare, setting, commands = LAYOUTS[layout]
    prepare(clone, paint)
    choose(clone, setting)

    for command in commands:
        run(command)
    checked = run("atelier data check")
    for command in ("dvc add -q data", "atelier base", "dvc repro -q"):
        run(command)

    assert f"pictures   {PICTURES}\n" in checked
    assert f"captions   {PICTURES}, 6 different" in checked
    assert "as in the profile in force" in checked
    lines = (clone / "artifacts/annotate/images.jsonl").read_text().splitlines()
    annotated = {one["file"]: one["caption"] for one in map(json.loads, lines)}
    assert {Path(file).stem: text for file, text in annotated.items()} == {
        str(number): caption(number) for number in range(PICTURES)
    }
    assert (clone / "artifacts/annotate/quarantine.jsonl").read_text() == ""
    assert (clone / "artifacts/report/report.html").stat().st_size > 10_000
    assert (clone / "base/mine.dvc").is_file()
    metrics = json.loads((clone / "artifacts/report/metrics.json").read_text())
    assert {"base", "theta1", "cpo-s"} <= metrics.keys()


def test_a_base_of_ones_own_reaches_temporary_workspaces_and_a_colleague(
    clone, run, paint, tmp_path
):
    kohya(clone, paint)
    choose(clone, None)
    for command in (
        "dvc add -q data",
        "atelier base",
        "dvc repro -q",
        f"dvc remote add -d store {tmp_path / 'store'}",
        "git add -A",
        "git commit -qm Mine",
        "dvc exp run --temp -S params/mine.yaml:sft.training.seed=5",
        "dvc push -q data.dvc base/mine.dvc",
        f"git clone -q . {tmp_path / 'colleague'}",
        f"cd {tmp_path / 'colleague'} && dvc pull -q data.dvc base/mine.dvc",
    ):
        run(command)

    for name in ("model_index.json", "transformer/diffusion_pytorch_model.safetensors"):
        theirs, ours = (tmp_path / who / "base/mine" / name for who in ("colleague", "clone"))
        assert theirs.read_bytes() == ours.read_bytes()
