"""What ``dvc metrics`` and ``dvc plots`` say of a report: its own numbers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.run import paths

DVC_YAML = Path(__file__).parents[2] / "dvc.yaml"
BEFORE = {"base": {"negatives": 3.4, "fid": 9.0}, "cpo-s": {"negatives": 1.5, "fid": 3.0}}
AFTER = {"base": {"negatives": 3.4, "fid": 9.0}, "cpo-s": {"negatives": 1.25, "fid": 3.5}}


def dvc(*words):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], check=True, capture_output=True, text=True
    )
    return done.stdout


def git(*words):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


def evaluated(metrics):
    """Leave the files behind that dvc.yaml reads."""
    paths.REPORT.mkdir(parents=True, exist_ok=True)
    paths.SUITES.write_text(json.dumps(metrics))
    paths.PLOTS.mkdir(exist_ok=True)
    rows = [f"{name},{row['negatives']}" for name, row in metrics.items()]
    (paths.PLOTS / "negatives.csv").write_text("\n".join(["painter,negatives", *rows]) + "\n")
    (paths.PLOTS / "criteria.csv").write_text("painter,criterion,negatives\nbase,a,0.5\n")


@pytest.mark.slow
def test_dvc_shows_and_compares_the_numbers_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    dvc("init", "-q")
    whole = yaml.safe_load(DVC_YAML.read_text())
    ours = [plot for plot in whole["plots"] if "negatives.csv" in str(plot)]
    stage = {
        "cmd": "true",
        "outs": [paths.PLOTS.as_posix()],
        "metrics": [paths.SUITES.as_posix()],
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": stage}, "plots": ours}))
    for metrics in (BEFORE, AFTER):
        evaluated(metrics)
        dvc("commit", "-f", "-q")
        git("add", "-A")
        git("commit", "-q", "-m", "evaluated")

    change = json.loads(dvc("metrics", "diff", "HEAD~1", "HEAD", "--json"))
    shown = json.loads(dvc("plots", "diff", "HEAD~1", "HEAD", "--json", "--split"))

    row = change[paths.SUITES.as_posix()]
    assert row["cpo-s.negatives"] == {"old": 1.5, "new": 1.25, "diff": -0.25}
    assert row["cpo-s.fid"]["diff"] == 0.5
    drawn = json.dumps(shown)
    assert '"painter": "cpo-s"' in drawn
    for value in ("1.5", "1.25"):
        assert re.search(rf'"negatives": "?{value}"?[,}}]', drawn)
