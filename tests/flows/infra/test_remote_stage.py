"""Two workers in clones of their own, sharing only a Prefect server and a DVC remote."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from atelier.errors import ParamsError
from flows.dvc.overrides import Changes
from flows.dvc.stages import Stage
from flows.infra import remote_stage

ROOT = Path(__file__).parents[3]
SETUP = "from flows.infra import prefect_setup as s; print(*s.setup())"
# Trains slowly, with a checkpoint a step outside of DVC's outs; says where it ran.
SLOW_WORK = """
import os, time
from pathlib import Path
state = Path("checkpoint")
value = state.read_text() if state.exists() else Path("out/draw").read_text()
Path("started").touch()
for step in range(value.count("+"), 30):
    time.sleep(0.5)
    value += "+"
    state.write_text(value)
    print(f"train: step {step + 1}/30", flush=True)
Path("out/train").write_text(value)
"""


def git(*words, cwd=None):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    said = subprocess.run(
        ["git", *who, *words], cwd=cwd, capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def dvc(*words, cwd=None):
    subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], cwd=cwd, check=True)


def publish(away):
    """Commit all, and give the repository a git remote and a DVC remote in ``away``."""
    dvc("remote", "add", "-d", "store", str(away / "store"))
    dvc("add", "data")
    git("add", "-A")
    git("commit", "-qm", "All")
    git("init", "-q", "--bare", "-b", "main", str(away / "code.git"))
    git("remote", "add", "origin", str(away / "code.git"))
    git("push", "-q", "origin", "main")


@pytest.fixture
def shared(repository, tmp_path_factory):
    """The small repository as a clone of a git remote, with a folder as DVC's remote."""
    away = tmp_path_factory.mktemp("away")
    (repository / "data").mkdir()
    (repository / "data/one").write_text("1")
    (repository / ".gitignore").write_text("/out\n/checkpoint\n/started\n")
    (repository / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    git("init", "-q", "-b", "main")
    dvc("config", "--unset", "core.no_scm")
    publish(away)
    return repository


def test_what_workers_cannot_see_is_not_sent(shared):
    assert remote_stage.commit_to_send() == git("rev-parse", "HEAD")

    (shared / "work.py").write_text("print()\n")
    with pytest.raises(ParamsError, match=r"uncommitted here:\n.*work\.py"):
        remote_stage.commit_to_send()
    git("commit", "-qam", "Work")
    with pytest.raises(ParamsError, match="is not on a git remote"):
        remote_stage.commit_to_send()


def test_a_pin_that_git_does_not_have_yet_is_not_sent(shared):
    (shared / "more").write_text("2")
    dvc("add", "more")
    git("commit", "-qm", "Ignore it", ".gitignore")

    with pytest.raises(ParamsError, match=r"more\.dvc pins an input and is not in git yet"):
        remote_stage.commit_to_send()


def test_a_clone_does_not_wait_for_itself(shared):
    remote_stage.share("prefect/1")

    remote_stage._refuse_the_sender("prefect/2")
    with pytest.raises(ParamsError, match="sent this stage and received it"):
        remote_stage._refuse_the_sender("prefect/1")


def test_settings_that_were_left_alone_are_not_sent(monkeypatch):
    sent = {}

    def taken(name, *, parameters, **more):
        sent.update(parameters)
        raise ParamsError("enough")

    monkeypatch.setattr(remote_stage, "run_deployment", taken)
    meta = {"gpu": 0, "memory": 1, "retries": 0, "timeout": 60, "silence": 60}
    stage = Stage(name="sft", needs=(), outs=(), about="", meta=meta)
    wanted = Changes(cpo_steps=5, others={"split.salt": None})

    with pytest.raises(ParamsError, match="enough"):
        remote_stage.send(
            stage, commit="0", force=False, wanted=wanted, pipeline="1", tell=print
        )

    assert sent["changes"] == {"cpo_steps": 5, "objectives": {}, "others": {"split.salt": None}}
    assert Changes.model_validate(sent["changes"]) == wanted


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A Prefect server of its own; its variables are ours from now on."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    for name, value in {
        "PREFECT_HOME": str(home),
        "TMPDIR": str(home),  # where the leases of this machine's devices lie
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }.items():
        monkeypatch.setenv(name, value)
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with started(words, home, home / "server.log"):
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        await_that(lambda: answers(f"http://127.0.0.1:{port}/api/health"), 120)
        yield home


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def started(words, cwd, log):
    """A Python process and all that it starts, ended for good afterwards."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            env={**os.environ, "PWD": str(cwd)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            kill_all(process)


def kill_all(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid)
        for one in [family, *family.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
    process.wait(30)


def await_that(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


def run(*words, cwd, **more):
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False, **more
    )


def worker(clone, pool):
    words = ["-m", "prefect", "worker", "start", "--pool", pool, "--name", clone.name]
    return started(words, clone, clone.with_suffix(f".{pool}.log"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_clones_share_the_work_and_a_killed_ones_stage_is_taken_up(
    shared, server, tmp_path_factory
):
    (shared / "work.py").write_text(SLOW_WORK)
    git("commit", "-qam", "Train slowly")
    git("push", "-q", "origin", "main")
    alone = clone_of(shared, tmp_path_factory, "alone")
    one, two, three = (clone_of(shared, tmp_path_factory, n) for n in ("one", "two", "three"))
    setup = run("-c", SETUP, cwd=shared)
    assert setup.returncode == 0, setup.stderr
    deploy(shared)
    log = shared.with_suffix(".log")
    words = ["-m", "cli", "run", "--on-workers"]
    with worker(one, "cpu"), started(words, shared, log) as coordinator:
        with worker(two, "gpu") as doomed:
            await_that((two / "checkpoint").exists, 240)
            kill_all(doomed)  # with the flow run, the supervisor, DVC and the training
        with worker(three, "gpu"):
            assert coordinator.wait(500) == 0, log.read_text()

    said = log.read_text()
    assert "train: worker 1 of 3 is gone; another takes it up" in said
    assert (one / "out/look").exists()
    assert (three / "out/train").exists()
    assert not (two / "out/train").exists()
    assert not (shared / "started").exists()  # nothing was trained at the coordinator's
    dvc("pull", "data.dvc", cwd=alone)
    dvc("repro", cwd=alone)
    for name in ("draw", "train", "look"):
        assert (shared / f"out/{name}").read_bytes() == (alone / f"out/{name}").read_bytes()
    assert plan_is_empty(shared)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_worker_dies_before_it_begins_is_taken_up(shared, server, tmp_path_factory):
    doomed, other = (clone_of(shared, tmp_path_factory, name) for name in ("doomed", "other"))
    soon = "import datetime as d; from flows.infra import prefect_setup; "
    soon += "prefect_setup._START = d.timedelta(seconds=20); "
    setup = run("-c", soon + SETUP, cwd=shared)
    assert setup.returncode == 0, setup.stderr
    assert "a run that does not begin is dead”: created" in setup.stdout
    deploy(shared)
    log = shared.with_suffix(".log")
    words = ["-m", "cli", "run", "draw", "--on-workers"]
    with started(words, shared, log) as coordinator:
        taken = doomed.with_suffix(".cpu.log")
        with worker(doomed, "cpu") as process:
            await_that(lambda: "submitted to infrastructure" in taken.read_text(), 120)
            kill_all(process)
        assert "Beginning subflow run" not in taken.read_text()
        await_that(lambda: "draw: worker 1 of 3 is gone" in log.read_text(), 120)
        with worker(other, "cpu"):
            assert coordinator.wait(200) == 0, log.read_text()

    assert (shared / "out/draw").read_text() == "colour: red\n"
    assert not (doomed / "out/draw").exists()


SFT = {
    "sft": {
        "cmd": "python -m tasks sft",
        "params": [{"params/toy.yaml": ["model", "sft"]}],
        "deps": ["artifacts/split/train.jsonl", "artifacts/annotate/criteria.yaml", "data"],
        "outs": ["artifacts/sft"],
        "meta": {"gpu": 1, "memory": 0, "retries": 0, "timeout": 600, "silence": 300},
    }
}
STEPS, CHECKPOINT = 200, 10


@pytest.fixture
def school(studio, profile, tmp_path_factory):
    """A repository of the real stage sft at toy size, with a git remote and a DVC remote."""
    away = tmp_path_factory.mktemp("away")
    values = yaml.safe_load(Path("params/toy.yaml").read_text())
    steps = {"steps": STEPS, "checkpoint_steps": CHECKPOINT, "report_steps": 1}
    values["sft"]["training"] |= steps
    Path("params/toy.yaml").write_text(yaml.safe_dump(values))
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": SFT}))
    ignored = ("artifacts/sft", "artifacts/resume", "artifacts/cache", "artifacts/mlflow")
    Path(".gitignore").write_text("".join(f"/{name}\n" for name in (*ignored, "mlruns")))
    git("init", "-q", "-b", "main")
    dvc("init")
    publish(away)
    return Path.cwd()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("by", ["another", "itself"])
def test_a_killed_workers_training_is_taken_up_and_learns_the_same(
    school, server, tmp_path_factory, by
):
    alone, first, other = (
        clone_of(school, tmp_path_factory, name) for name in ("alone", "first", "other")
    )
    setup = run("-c", SETUP, cwd=school)
    assert setup.returncode == 0, setup.stderr
    deploy(school)
    log = school.with_name(f"{school.name}.log")
    with started(["-m", "cli", "run", "--on-workers"], school, log) as coordinator:
        with worker(first, "gpu") as doomed:
            await_that(lambda: checkpoints(first), 400)
            kill_all(doomed)  # with the flow run, the supervisor, DVC and the training
        assert not (first / "artifacts/sft").exists()
        dvc("pull", "data.dvc", cwd=alone)  # while nobody has noticed yet
        dvc("repro", cwd=alone)
        with worker({"another": other, "itself": first}[by], "gpu"):
            assert coordinator.wait(600) == 0, log.read_text()

    assert "sft: worker 1 of 3 is gone; another takes it up" in log.read_text()
    for name in ("pytorch_lora_weights.safetensors", "curve.tsv", "metrics.json"):
        learned = (school / "artifacts/sft" / name).read_bytes()
        assert learned == (alone / "artifacts/sft" / name).read_bytes(), name
    # It goes on from the checkpoint where that lies, and begins again where it does not.
    resumed = first if by == "itself" else other
    assert not checkpoints(resumed)  # finished work is cleared away
    assert bool(checkpoints(first)) == (by == "another")
    killed, undisturbed, taken_up = first_steps()
    assert (killed, undisturbed) == (1, 1)
    assert (taken_up > CHECKPOINT) == (by == "itself")


def checkpoints(clone):
    """What a training of this clone would go on from."""
    return list(clone.glob("artifacts/resume/sft-*/**/step-*.safetensors"))


def first_steps():
    """The first step that each training told MLflow of, the oldest training first."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    everywhere = [one.experiment_id for one in mlflow.search_experiments()]
    runs = mlflow.search_runs(everywhere, order_by=["attributes.start_time ASC"])
    told = [mlflow.get_metric_history(run.info.run_id, "loss") for run in runs]
    return [min(value.step for value in values) for values in told if values]


def plan_is_empty(repository):
    said = run("-m", "dvc", "repro", cwd=repository)
    return said.returncode == 0 and said.stdout.count("didn't change, skipping") >= 3


def clone_of(repository, tmp_path_factory, name):
    clone = tmp_path_factory.mktemp("clones") / name
    git("clone", "-q", git("remote", "get-url", "origin", cwd=repository), str(clone))
    return clone


def deploy(repository):
    """As `prefect deploy --all`, of what workers run."""
    (repository.parent / "deploy").mkdir(exist_ok=True)
    file = repository.parent / "deploy/prefect.yaml"
    file.write_text((ROOT / "prefect.yaml").read_text())
    for pool in ("cpu", "gpu"):
        words = [
            "--no-prompt",
            "deploy",
            "--prefect-file",
            str(file),
            "-n",
            f"on-worker/{pool}",
        ]
        said = run("-m", "prefect", *words, cwd=repository)
        assert said.returncode == 0, said.stdout + said.stderr
