"""``up`` and ``down``, a schedule that fires by itself, PostgreSQL, docker-compose.yaml."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from flows.infra import local_services, prefect_setup

ROOT = Path(__file__).parents[3]
PREFECT_YAML = """
name: small
pull:
- flows.infra.clone.enter: {}
deployments:
- name: often
  entrypoint: flows.reproduce:reproduce
  schedules: [{interval: 30, active: true}]
  concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
  work_pool: {name: "{{ $ATELIER_POOL }}"}
"""


def test_docker_compose_is_whole_quiet_and_on_this_machine_alone():
    content = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().split()
        if "==" in line
    )
    services = content["services"]

    assert services.keys() == {"postgres", "minio", "buckets", "prefect", "mlflow"}
    assert services["prefect"]["image"].startswith(f"prefecthq/prefect:{pins['prefect']}-")
    assert f"mlflow=={pins['mlflow']} " in services["mlflow"]["command"][2]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable or "SECRET" in variable:
                assert value.startswith("${"), f"{name} holds a password"
        assert set(service.get("depends_on", {})) <= services.keys()
    named = [row.partition(":")[0] for s in services.values() for row in s.get("volumes", [])]
    assert set(named) == content["volumes"].keys()


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_a_kubernetes_template_is_a_job_whose_blanks_are_all_variables(pool):
    from prefect.client.schemas.objects import WorkPool
    from prefect.utilities.templating import find_placeholders

    template = json.loads((ROOT / f"kubernetes/{pool}.json").read_text())
    manifest = template["job_configuration"]["job_manifest"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]

    WorkPool(name=pool, type="kubernetes", base_job_template=template)  # Prefect checks it
    blanks = {blank.name for blank in find_placeholders(template["job_configuration"])}
    assert blanks <= template["variables"]["properties"].keys()
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (pool == "gpu")
    assert pool in prefect_setup.SHARED_POOLS


def test_a_database_that_cannot_be_reached_is_said_without_the_password(monkeypatch):
    pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
    with pytest.raises(
        local_services.ParamsError, match="PostgreSQL of ATELIER_POSTGRES"
    ) as error:
        local_services._ensure_databases(f"postgresql://a:secret@127.0.0.1:{free_port()}")

    assert "secret" not in str(error.value)
    with pytest.raises(local_services.ParamsError, match="should be postgresql://user"):
        local_services._ensure_databases("mysql://somewhere")


@pytest.fixture
def listening(monkeypatch):
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_second_clone_takes_other_ports_and_says_so_if_one_was_asked_for(
    listening, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(local_services._USUAL, local_services._PREFECT, listening)

    assert local_services._port(local_services._PREFECT, None) != listening
    with pytest.raises(
        local_services.ParamsError, match=f"port {listening} is used by another"
    ):
        local_services._port(local_services._PREFECT, listening)


def test_a_clone_has_the_ports_of_last_time(listening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local_services._FOLDER.mkdir(parents=True)
    port = free_port()
    local_services._PORTS.write_text(json.dumps({local_services._MLFLOW: port}))

    assert local_services._port(local_services._MLFLOW, None) == port
    local_services._PORTS.write_text(json.dumps({local_services._MLFLOW: listening}))
    assert local_services._port(local_services._MLFLOW, None) != listening


def test_a_server_that_ends_at_once_is_said_although_another_answers(
    listening, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    local_services._FOLDER.mkdir(parents=True)
    monkeypatch.setattr(local_services, "failure", lambda url: None)
    words = ["-c", "print('Address already in use'); raise SystemExit(1)"]
    server = local_services.Server("1-prefect", words, "http://127.0.0.1:1/api/health", {})
    process = local_services._launch(server)
    process.wait()

    with pytest.raises(
        local_services.ParamsError, match=r"does not run.*[\s\S]*already in use"
    ):
        local_services._await(server, process)


def test_a_server_that_never_answers_is_stopped_so_that_up_may_be_tried_again(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    local_services._FOLDER.mkdir(parents=True)
    monkeypatch.setattr(local_services, "_PATIENCE_SECONDS", 0.5)
    words = ["-c", "import time; time.sleep(600)"]
    address = f"http://127.0.0.1:{free_port()}/api/health"
    server = local_services.Server("1-prefect", words, address, {})

    with pytest.raises(local_services.ParamsError, match=r"did not answer in 0.5 seconds"):
        local_services._await(server, local_services._launch(server))

    assert local_services._process("1-prefect") is None


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def postgres(tmp_path_factory):
    """A PostgreSQL of its own, from Debian's packages; its address."""
    pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if os.getuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no runuser")
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path("/tmp") / f"atelier-postgres-{os.getpid()}"
    folder.mkdir()
    if as_postgres:
        shutil.chown(folder, "postgres")
    tools = found[-1].parent
    data, port = folder / "data", free_port()
    make = [tools / "initdb", "-D", data, "-U", "atelier", "--auth=trust"]
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    start = [tools / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"]
    stop = [tools / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
    try:
        for words in (make, start):
            subprocess.run(
                [*as_postgres, *map(str, words)], check=True, cwd="/", stdout=subprocess.DEVNULL
            )
        yield f"postgresql://atelier:none@127.0.0.1:{port}"
    finally:
        subprocess.run(
            [*as_postgres, *map(str, stop)], check=False, cwd="/", stdout=subprocess.DEVNULL
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["files", "PostgreSQL"])
def running(request, repository, tmp_path_factory, monkeypatch):
    """What ``up`` starts in the small repository; the addresses that it prints."""
    if request.param == "PostgreSQL":
        monkeypatch.setenv(local_services.POSTGRES, request.getfixturevalue("postgres"))
    for name, value in {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }.items():
        monkeypatch.setenv(name, value)
    (repository / "prefect.yaml").write_text(PREFECT_YAML)
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    try:
        said = flows("up", *ports)
        assert said.returncode == 0, said.stdout + said.stderr
        found = dict(re.findall(r"export (\w+)=(\S+)", said.stdout))
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        yield request.param
    finally:
        flows("down")


def flows(*words):
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_schedule_fires_by_itself_and_down_leaves_nothing(running, repository):
    from mlflow import MlflowClient

    family = [
        int(file.read_text().split()[0]) for file in Path("artifacts/servers").glob("*.pid")
    ]
    end = time.monotonic() + 400
    while not (states := finished()) or "UpToDate" not in states:
        assert time.monotonic() < end, states
        time.sleep(2)

    assert states[0] == "Ran"
    assert (repository / "out/look").read_text() == "colour: red\n" * 2
    mlflow = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    run = mlflow.create_run(mlflow.create_experiment("paint")).info.run_id
    mlflow.log_text(run, "a sea", "about.txt")
    assert [entry.path for entry in mlflow.list_artifacts(run)] == ["about.txt"]
    if running == "PostgreSQL":
        assert rows("prefect", "SELECT count(*) FROM flow_run") >= 2
        assert rows("mlflow", "SELECT count(*) FROM runs") == 1
    assert "runs already" in flows("up").stdout

    said = flows("down").stdout

    assert said.splitlines() == [
        f"{name} is stopped" for name in ("4-live", "3-worker", "2-mlflow", "1-prefect")
    ]
    assert not any(map(psutil.pid_exists, family))


def finished():
    """The states of the flow runs that ended, the oldest first."""
    request = urllib.request.Request(
        os.environ["PREFECT_API_URL"] + "/flow_runs/filter",
        json.dumps({"sort": "START_TIME_ASC"}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        runs = json.load(answer)
    return [run["state_name"] for run in runs if run["state_type"] == "COMPLETED"]


def rows(database, query):
    import psycopg2

    address = f"{os.environ[local_services.POSTGRES]}/{database}"
    with psycopg2.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]
