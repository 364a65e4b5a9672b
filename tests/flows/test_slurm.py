"""Workers and trainings as jobs of SLURM, run by a stand-in that checks what it is given."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from atelier.errors import ParamsError
from flows import sharded
from tasks.run import launch
from tests import slurm

ROOT = Path(__file__).parents[2]
needs_jobqueue = pytest.mark.skipif(
    importlib.util.find_spec("dask_jobqueue") is None,
    reason="dask-jobqueue is absent; pip install -c constraints.txt -e '.[scale]'",
)


def test_the_sbatch_script_has_options_that_sbatch_knows():
    options = slurm.directives((ROOT / "slurm/train.sbatch").read_text())

    assert options["nodes"] == "2"
    assert options["signal"] == "B:TERM@120"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--node=2", "unrecognized option"),
        ("--time=1d", "invalid time"),
        ("--mem=64GiB", "invalid mem"),
        ("-J", "pop from empty list"),
        ("two nodes", "no options"),
    ],
)
def test_the_stand_in_refuses_what_sbatch_would(line, said):
    with pytest.raises((slurm.RefusedError, IndexError), match=said):
        slurm.directives(f"#!/bin/bash\n#SBATCH {line}\ntrue\n")


@pytest.fixture
def job(monkeypatch):
    """Two nodes of a job, of which this is the first; what would become of this process."""
    for name, value in {
        "ATELIER_NODES": "2", "ATELIER_PROCESSES": "4", "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("WORLD_SIZE", "ATELIER_FIRST_NODE", "ATELIER_PIPELINE"):
        monkeypatch.setenv(name, "")  # absent again afterwards
        monkeypatch.delenv(name)
    became = []

    def execvp(file, words):
        became.append(words)
        raise SystemExit

    monkeypatch.setattr(os, "execvp", execvp)
    return became


def test_a_training_becomes_srun_of_itself_on_each_node(job):
    assert launch.wanted("sft")

    with pytest.raises(SystemExit):
        launch.several("sft")

    (words,) = job
    assert words[0] == "srun"
    assert words[-4:] == [sys.executable, "-m", "tasks", "sft"]
    assert "2" in words
    assert os.environ["ATELIER_FIRST_NODE"] == launch.socket.gethostname()
    assert os.environ["ATELIER_PIPELINE"], "stages on the nodes belong to this run"


def test_each_node_takes_its_place(job, monkeypatch):
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("ATELIER_FIRST_NODE", "node0")

    words = launch._place()

    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--num_machines": "2",
        "--machine_rank": "1",
        "--main_process_ip": "node0",
        "--main_process_port": "29500",
    }
    monkeypatch.setenv("ATELIER_NODES", "1")
    assert launch._place()[:4] == ["--num_machines", "1", "--machine_rank", "0"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_JOB_NUM_NODES": "1"}, "this job of SLURM has 1 node.*--nodes=2"),
        ({"ATELIER_NODES": "two"}, "ATELIER_NODES should be a number of nodes"),
        ({"SLURM_JOB_ID": None}, "no job of SLURM: submit slurm/train.sbatch"),
    ],
)
def test_nodes_that_are_not_there_are_named(job, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)

    with pytest.raises(ParamsError, match=said):
        launch.several("sft")


@pytest.fixture
def standin(tmp_path, monkeypatch):
    """SLURM's commands on PATH; the folder of jobs."""
    folder = slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_SLURM", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@needs_jobqueue
def test_what_the_workers_jobs_need_is_said_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ParamsError, match="no sbatch on this machine"):
        sharded.slurm_runner(2, 0)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ParamsError, match="set PREFECT_API_URL"):
        sharded.slurm_runner(2, 0)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ParamsError, match=r"pip install -c constraints.txt -e '\.\[scale\]'"):
        sharded.slurm_runner(2, 0)


@needs_jobqueue
@pytest.mark.parametrize("gpu", [0, 1])
def test_a_workers_job_asks_for_what_sbatch_knows(standin, tmp_path, monkeypatch, gpu):
    from dask_jobqueue.slurm import SLURMJob

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sharded, "PREFECT_API_URL", Setting("http://login:4200/api"))
    asked = dict(sharded.slurm_runner(2, gpu).cluster_kwargs)
    assert asked.pop("security") is True
    assert Path(asked.pop("shared_temp_directory")).is_dir()
    assert asked.pop("n_workers") == 2
    del asked["scheduler_options"]

    script = SLURMJob("tls://login:8786", name="0", **asked).job_script()

    options = slurm.directives(script)
    assert options["cpus-per-task"] == "1"
    assert options["mem"] == "8G"
    assert options.get("gres") == ("gpu:1" if gpu else None)
    assert f"{sys.executable} -m distributed.cli.dask_worker" in script


class Setting:
    """Stands where one of Prefect's settings is."""

    def __init__(self, said):
        self._said = said

    def value(self):
        return self._said


FLOW = """
import json, os
from prefect.testing.utilities import prefect_test_harness
from flows import sharded
from flows.infra import gpus

if __name__ == "__main__":
    with prefect_test_harness(server_startup_timeout=120):
        runner = sharded.slurm_runner(2, 0)
        spread = sharded.judge_shards.with_options(task_runner=runner)
        state = spread(8, return_state=True)
    print(json.dumps({"state": state.type.value, "message": state.message}))
"""


@needs_jobqueue
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_of_slurm_judge_what_one_process_judges(standin, tmp_path, monkeypatch, profile):
    from tests.flows import test_sharded as shards

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__LOG_DIRECTORY", str(tmp_path / "logs"))
    shards._lay_out(profile)
    shards._stage()
    alone = shards._outputs()

    Path("spread.py").write_text(FLOW)
    seen = json.loads(shards._python("spread.py").splitlines()[-1])

    assert seen["state"] == "COMPLETED", seen
    jobs = sorted(standin.glob("*"))
    assert len(jobs) == 2
    assert all((job / "cancelled").is_file() for job in jobs), "no job is left"
    shards._stage()
    assert shards._outputs() == alone
