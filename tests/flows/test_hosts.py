"""A training over two hosts, as a job of the sbatch script, with a cable that is cut."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.run import paths
from tests import slurm
from tests.hosts import hosts  # noqa: F401 -- a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
SILENCE = 60  # seconds without a line after which a stage is ended
STEPS = 400


@pytest.fixture
def cluster(studio, hosts, tmp_path, monkeypatch):  # noqa: F811
    """The studio as a clone that two nodes share; a function that submits its job."""
    folder = Path.cwd()
    (folder / "slurm").mkdir()
    shutil.copy(ROOT / "slurm/train.sbatch", folder / "slurm")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    meta = {"gpu": 0, "memory": 0, "retries": 0, "timeout": 1500, "silence": SILENCE}
    stage = {
        "cmd": "python -m tasks sft",
        "params": [{"params/toy.yaml": ["sft"]}],
        "outs": ["artifacts/sft"],
        "meta": meta,
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"sft": stage}}))
    jobs = tmp_path / "jobs"
    commands = slurm.install(tmp_path / "bin")
    atelier = commands / "atelier"
    atelier.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli "$@"\n')
    atelier.chmod(0o755)
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    mine |= {
        "PATH": os.pathsep.join(
            [str(commands), str(Path(sys.executable).parent), mine["PATH"]]
        ),
        "PYTHONPATH": str(ROOT),
        "STANDIN_SLURM": str(jobs),
        "STANDIN_NODES": json.dumps([hosts.prefix(0), hosts.prefix(1)]),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True, env=mine
    )

    def submit():
        words = ["sbatch", "slurm/train.sbatch", "sft"]
        said = subprocess.run(words, capture_output=True, text=True, check=True, env=mine)
        return Job(said.stdout.split()[-1], jobs)

    return submit


class Job:
    def __init__(self, number, jobs):
        self._folder = jobs / number
        self._log = Path(f"slurm-{number}.log")

    def said(self):
        return self._log.read_text() if self._log.is_file() else ""

    def lives(self):
        status = Path(f"/proc/{(self._folder / 'pid').read_text()}/status")
        return status.is_file() and "State:\tZ" not in status.read_text()

    def until(self, happened, seconds=900):
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, self.said()[-3000:]
            time.sleep(0.2)


def trained(steps):
    """Change the toy's settings."""
    values = yaml.safe_load((paths.PARAMS / "toy.yaml").read_text())
    more = {"steps": steps, "checkpoint_steps": 5, "report_steps": 1, "batch_images": 4}
    values["sft"]["training"] |= more
    (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(values))


def curve(file):
    with file.open() as rows:
        return [
            {k: float(v) for k, v in row.items()}
            for row in csv.DictReader(rows, delimiter="\t")
        ]


def steps_done():
    files = list(paths.RESUME.glob("sft-*/curve.jsonl"))
    return sum(len(file.read_text().splitlines()) for file in files)


def test_a_job_trains_on_two_hosts_and_goes_on_after_a_cut_cable(
    cluster,
    hosts,  # noqa: F811
):
    trained(STEPS)
    alone = subprocess.run([sys.executable, "-m", "tasks", "sft"], check=False)
    assert alone.returncode == 0
    expected = curve(paths.SFT / "curve.tsv")
    shutil.rmtree(paths.SFT)

    job = cluster()
    job.until(lambda: steps_done() > 10 or not job.lives())
    assert job.lives(), job.said()[-3000:]
    assert "2 process(es)" in job.said()
    hosts.cut()
    job.until(lambda: not job.lives())
    assert "was silent for longer" in job.said()
    done = steps_done()
    assert 10 < done < STEPS

    hosts.mend()
    job = cluster()
    job.until(lambda: not job.lives())

    assert (paths.SFT / "curve.tsv").is_file(), job.said()[-3000:]
    found = curve(paths.SFT / "curve.tsv")
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    # Sums of two processes are rounded otherwise, and 400 steps of Adam carry that on.
    for one, two in zip(expected[:50], found[:50], strict=True):
        assert two == pytest.approx(one, rel=1e-2, abs=1e-2)


def test_a_job_whose_time_is_over_stops_and_is_queued_again(cluster):
    trained(STEPS)
    job = cluster()
    job.until(lambda: steps_done() > 10 or not job.lives())

    os.kill(int((job._folder / "pid").read_text()), 15)  # as `--signal=B:TERM@120` does
    job.until(lambda: (job._folder / "requeued").is_file())
    assert "Stopped; the same command goes on from the last checkpoint." in job.said()

    job.until(lambda: not job.lives())
    assert [row["step"] for row in curve(paths.SFT / "curve.tsv")] == list(range(1, STEPS + 1))
