"""A whole run with keys in its environment: what it leaves holds none of them, and no pickle.

Servers as ``flows up`` starts them, a model that wants a key, the stages as Prefect runs them,
then everything that can go wrong with a key in it. After that every byte is looked through.
"""

import base64
import contextlib
import json
import pickletools
import socket
import sqlite3
import subprocess
import sys
import urllib.parse
import zipfile
import zlib

import psutil
import pytest
import yaml

from tests.faults import workshop

MARK = "zq7-marker"
KEYS = {
    "ATELIER_TOY_KEY": f"sk-{MARK}-model",
    "PREFECT_API_KEY": f"pnu_{MARK}-prefect",
    "AWS_ACCESS_KEY_ID": f"AKIA{MARK}-aws",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-aws-secret",
    "HF_TOKEN": f"hf_{MARK}-hub",
}
PASSWORD = f"{MARK}-mlflow"
DATABASE = f"postgresql+psycopg2://ann:{MARK}-database@127.0.0.1:9/votes"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class House:
    """The studio, with keys in its environment, and everything that was said in it."""

    def __init__(self, folder, ports):
        self.folder, self.said, self.codes = folder, [], []
        self.prefect, self.mlflow = ports
        self.variables = {
            **KEYS,
            "PREFECT_API_URL": f"http://127.0.0.1:{self.prefect}/api",
            "MLFLOW_TRACKING_URI": f"http://ann:{PASSWORD}@127.0.0.1:{self.mlflow}",
            "PREFECT_HOME": str(folder.parent / "prefect"),
            # Leases of devices lie there: nobody else's training is waited for.
            "TMPDIR": str(folder.parent / "tmp"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *words, **more):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=workshop.environment(**{**self.variables, **more}),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=1200,
            check=False,
        )
        self.said.append(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}")
        self.codes.append(done.returncode)
        return done

    def good(self, *words, **more):
        done = self.run(*words, **more)
        assert done.returncode == 0, self.said[-1][-4000:]
        return done

    def refused(self, *words, **more):
        done = self.run(*words, **more)
        assert done.returncode == 2, self.said[-1][-4000:]
        assert "Traceback" not in self.said[-1], self.said[-1][-4000:]
        return done


@pytest.fixture
def house(tmp_path, vlm):
    vlm |= {"key_variable": "ATELIER_TOY_KEY", "longest_wait_seconds": 0.05, "tries": 2}
    folder = workshop.build(tmp_path / "studio", vlm)
    captions = folder / "data/captions.csv"
    text = captions.read_text().replace('"a ', "\"<script>alert('x')</script> a ")
    captions.write_text(text)
    for name in ("prefect.yaml", "pyproject.toml", ".gitignore"):
        (folder / name).write_bytes((workshop.ROOT / name).read_bytes())
    (tmp_path / "tmp").mkdir()
    house = House(folder, (free_port(), free_port()))
    house.good("-m", "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "Toy"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)
    yield house
    house.run("-m", "cli", "down")


def listening(folder):
    """Addresses at which the servers of ``flows up`` and their children listen."""
    found = {}
    for file in (folder / "artifacts/servers").glob("*.pid"):
        process = psutil.Process(int(file.read_text().split()[0]))
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                for connection in one.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.setdefault(file.stem, set()).add(connection.laddr)
    return found


def spellings(secret):
    """How a secret may stand in a file."""
    raw = secret.encode()
    yield raw
    yield urllib.parse.quote(secret, safe="").encode()
    for user in ("", "ann:"):  # as it goes into a header
        yield base64.b64encode(user.encode() + raw).rstrip(b"=")[:-1]
    yield raw[::-1]


def contents(file):
    """The bytes of a file, and what is packed in it."""
    raw = file.read_bytes()
    yield raw
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if ".git/objects" in file.as_posix() or raw[:2] in {b"x\x9c", b"x\x01", b"\x1f\x8b"}:
        with contextlib.suppress(zlib.error):
            yield zlib.decompress(raw, wbits=zlib.MAX_WBITS | 32)


def is_pickle(file):
    """Say whether a file is one, or holds one as torch.save's archives do."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    head = file.read_bytes()
    if not (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        return file.suffix in {".pkl", ".pickle", ".joblib", ".dill"}
    with contextlib.suppress(Exception):
        return any(op.name == "STOP" for op, _, _ in pickletools.genops(head))
    return False


@pytest.mark.timeout(2400)
def test_a_run_with_keys_in_its_environment_leaves_none_of_them_behind(
    house, model_server, tmp_path, figure
):
    # Servers, on this machine alone.
    ports = ["--prefect-port", str(house.prefect), "--mlflow-port", str(house.mlflow)]
    for _ in range(
        3
    ):  # on a busy machine a server takes longer than `up` waits; it goes on then
        if house.run("-m", "cli", "up", *ports).returncode == 0:
            break
    assert house.codes[-1] == 0, house.said[-1]
    house.codes.clear()
    heard = listening(house.folder)
    assert {"1-prefect", "2-mlflow"} <= heard.keys()
    for addresses in heard.values():
        assert {one.ip for one in addresses} <= {"127.0.0.1", "::1"}
    assert {one.port for one in heard["1-prefect"]} >= {house.prefect}
    figure("Security", "`flows up`: sockets that listen", sum(map(len, heard.values())),
           "127.0.0.1 alone")  # fmt: skip

    # A whole run, by Prefect, with a model that wants its key, registered in MLflow.
    model_server.follow(keep=True)
    house.good("-m", "cli", "run")
    asked = model_server.asked()["bodies"]
    assert {one["key"] for one in asked} == {f"Bearer {KEYS['ATELIER_TOY_KEY']}"}
    house.good("-m", "dvc", "push", "-q")
    house.run("-m", "cli", "results")
    house.run("-m", "cli", "doctor")
    house.good("-m", "cli", "survey", "make", "trial")
    invited = house.good(
        "-m", "cli", "survey", "invite", "trial", "--group", "experts", "--count", "2"
    )
    tokens = [line.rpartition("/")[2] for line in invited.stdout.splitlines()]
    assert len(tokens) == 2
    house.said.pop()  # the links are printed there, once, and nowhere else

    # Everything that can go wrong with a key in it.
    model_server.follow(status=401, error={"code": "invalid_api_key"})  # it repeats the key
    (house.folder / "artifacts/cache/answers").rename(tmp_path / "answers-before")
    house.refused("-m", "tasks", "annotate")
    assert "401" in house.said[-1]
    model_server.follow(status=500, error={})
    house.run("-m", "tasks", "annotate")
    model_server.follow()
    house.refused("-m", "tasks", "annotate", ATELIER_TOY_KEY="")
    away = f"http://ann:{PASSWORD}@127.0.0.1:9"
    for words in (
        ["tasks", "split"], ["cli", "registry"], ["cli", "doctor"],
        ["cli", "generate", "a sea", "--model", "models:/toy-cpo-s@champion"],
        ["cli", "compare", "models:/toy-cpo-s/1", "models:/toy-cpo/1", "--slack", "0"],
    ):  # fmt: skip
        done = house.run("-m", *words, MLFLOW_TRACKING_URI=away)
        assert "Traceback" not in done.stdout + done.stderr, house.said[-1][-3000:]
    house.refused("-m", "cli", "survey", "status", "trial", ATELIER_SURVEY_DATABASE=DATABASE)
    profile = house.folder / "params/toy.yaml"
    before = profile.read_text()
    for name, value in (
        ("key_variable", KEYS["ATELIER_TOY_KEY"]),
        ("base_url", f"http://ann:{PASSWORD}@127.0.0.1/v1"),
    ):
        values = yaml.safe_load(before)
        values["annotate"]["vlm"][name] = value
        profile.write_text(yaml.safe_dump(values))
        house.refused("-m", "tasks", "annotate")
    profile.write_text(before)
    house.good("-m", "cli", "down")

    # Every byte that is left, and every word that was said.
    secrets = [*KEYS.values(), PASSWORD, f"{MARK}-database", *tokens]
    files = [
        file
        for file in sorted(tmp_path.rglob("*"))
        if file.is_file() and not file.is_symlink() and "__pycache__" not in file.parts
    ]
    assert any(file.name == "mlflow.db" for file in files)
    assert any(file.name == "prefect.db" for file in files)
    assert any(tmp_path / "store" in file.parents for file in files)
    marks = [one for secret in secrets for one in spellings(secret)]
    leaks = {
        file.relative_to(tmp_path).as_posix()
        for file in files
        for content in contents(file)
        if any(mark in content for mark in marks)
    }
    said = "\n".join(house.said).encode()
    leaks |= {f"said: {mark!r}" for mark in marks if mark in said}
    (tmp_path / "said.txt").write_bytes(said)
    assert leaks == set(), said[:200]
    figure("Security", f"{len(KEYS) + 2} marked keys and passwords in a run's environment, "
           f"2 invitations, {len(house.codes)} commands, of which "
           f"{sum(code != 0 for code in house.codes)} failed on purpose: files searched",
           len(files), "none holds one, nor does what was said")  # fmt: skip

    pickles = [
        file.relative_to(tmp_path).as_posix()
        for file in files
        if ".git" not in file.parts and is_pickle(file)
    ]
    assert pickles == []
    figure("Security", "the same files, looked through for pickles", len(files), "none is one")

    # What the pages say of a caption with a script in it.
    report = (house.folder / "artifacts/report/report.html").read_text()
    assert "&lt;script&gt;" in report
    assert "<script" not in report
    with contextlib.closing(sqlite3.connect(house.folder / "artifacts/mlflow/mlflow.db")) as db:
        assert db.execute("select count(*) from model_versions").fetchone()[0] >= 1
    assert json.loads((house.folder / "artifacts/report/metrics.json").read_text())


def test_the_search_finds_what_is_hidden(tmp_path):
    import pickle

    import numpy as np
    import torch

    (tmp_path / "a").write_bytes(pickle.dumps({"a": [1]}))
    torch.save({"a": torch.zeros(1)}, tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", np.zeros(2))
    assert [is_pickle(tmp_path / name) for name in ("a", "b.pt", "c.npz")] == [
        True,
        True,
        False,
    ]
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("x", KEYS["HF_TOKEN"])
    marks = list(spellings(KEYS["HF_TOKEN"]))
    assert any(mark in content for content in contents(tmp_path / "d.zip") for mark in marks)
    header = base64.b64encode(f"ann:{PASSWORD}".encode())
    assert any(mark in header for mark in spellings(PASSWORD))
