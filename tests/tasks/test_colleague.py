"""A colleague's clone: git and `dvc pull`, then the table and the registry, nothing trained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.run import paths
from tasks.tracking import registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOTS = "painter,root,negatives\nbase,colour,0.5\ncpo-s,colour,0.25\n"
METRICS = """
{"base": {"negatives": 3.4, "negatives_low": 3.1, "negatives_high": 3.7, "fid": 9.0},
 "theta1": {"negatives": 3.1, "negatives_low": 2.9, "negatives_high": 3.3, "fid": 9.5},
 "cpo-s": {"negatives": 1.5, "negatives_low": 1.2, "negatives_high": 1.8, "fid": 3.0}}
"""


def run(*words, cwd):
    """Run one of our commands, with nobody's GPU, and without a network."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"MLFLOW_TRACKING_URI", "ATELIER_PIPELINE"}
    }
    environment |= {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(*words, cwd):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def author(workspace):
    """A repository in git, whose stages ran, with a folder as DVC's remote; all is pushed."""
    outs = {
        "sft": [f"artifacts/sft/{registry.LORA}"],
        "cpo": ["artifacts/cpo"],
        "report": [
            paths.SUITES.as_posix(),
            "artifacts/report/plots",
            paths.CARDS.as_posix(),
        ],
    }
    train = "touch trained && false"  # whoever trains again is found out
    stages = {name: {"cmd": train, "outs": out} for name, out in outs.items()}
    stages["report"]["deps"] = [*outs["sft"], *outs["cpo"]]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    Path(".gitignore").write_text("/artifacts\n/store\n")
    git("init", "-q", "-b", "main", cwd=".")
    run("-m", "dvc", "init", "-q", cwd=".")
    run("-m", "dvc", "remote", "add", "-q", "-d", "store", str(workspace / "store"), cwd=".")
    run("-m", "dvc", "config", "core.autostage", "false", cwd=".")
    for folder in (paths.SFT, paths.CPO / "cpo-s"):
        folder.mkdir(parents=True)
        (folder / registry.LORA).write_text(folder.name)
    for file, content in {
        paths.SUITES: METRICS,
        paths.PLOTS / "roots.csv": ROOTS + "theta1,colour,0.4\n",
        paths.CARDS / "cpo-s/README.md": "# a card",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    run("-m", "dvc", "commit", "-f", "-q", cwd=".")
    run("-m", "dvc", "push", "-q", cwd=".")
    git("add", "-A", cwd=".")
    git("commit", "-qm", "All", cwd=".")
    return workspace


@pytest.fixture
def clone(author, tmp_path_factory, mlflow_tables):
    """A clone of it that has pulled, with an MLflow of its own."""
    clone = tmp_path_factory.mktemp("colleague") / "clone"
    git("clone", "-q", str(author), str(clone), cwd=author)
    run("-m", "dvc", "pull", "-q", cwd=clone)
    (clone / paths.MLFLOW).mkdir(parents=True)
    shutil.copy(mlflow_tables, clone / paths.MLFLOW)
    return clone


def without_places(table):
    return [line for line in table.splitlines() if not line.startswith("MLflow")]


def test_a_clone_that_pulled_prints_the_same_table_and_registers_the_same_weights_once(
    author, clone
):
    assert not (clone / "store").exists()

    theirs, ours = (
        run("-m", "cli", "results", cwd=author),
        run("-m", "cli", "results", cwd=clone),
    )
    first = run("-m", "cli", "registry", cwd=clone)
    second = run("-m", "cli", "registry", cwd=clone)

    assert without_places(ours) == without_places(theirs)
    assert "1.50 [1.20, 1.80]" in ours
    *said, runs, models = first.splitlines()  # one version: nothing to compare
    assert (runs.split()[0], models.split()[0]) == ("runs", "models")
    assert said == [
        "registry: theta1 is atelier-starter-theta1 version 1, new",
        "registry: cpo-s is atelier-starter-theta version 1, new",
        "registry: champion of atelier-starter-theta is version 1 (cpo-s)",
    ]
    assert second.splitlines() == [line.removesuffix(", new") for line in first.splitlines()]
    assert not (clone / "trained").exists()
    status = run("-m", "dvc", "status", cwd=clone)
    assert status == "Data and pipelines are up to date.\n"
