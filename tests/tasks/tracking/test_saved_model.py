"""A registered model's folder, moved to where the clone is not."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
import venv
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tasks.run import paths
from tasks.tracking import registry, saved_model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def saved(studio, monkeypatch, tmp_path_factory):
    """The folder of a model with θ1's weights, at a place of its own; studio is gone then."""
    paths.SFT.mkdir(parents=True, exist_ok=True)

    class Outs:
        def get_file(self, source, target):
            shutil.copy(source, target)

    from contextlib import contextmanager

    @contextmanager
    def opened():
        yield Outs()

    monkeypatch.setattr(saved_model.locked_outs, "opened", opened)
    folder = tmp_path_factory.mktemp("elsewhere") / "model"

    def write():
        saved_model.write(folder, "theta1", paths.SFT / registry.LORA, studio)
        return folder

    return write


def trained(studio, notebook):
    from tasks import sft

    sft.run(studio, notebook)


def test_a_saved_model_names_no_path_of_this_machine_and_no_local_version(
    studio, notebook, saved
):
    trained(studio, notebook)
    folder = saved()

    text = "\n".join(
        file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.is_file() and file.suffix != ".py"
    )
    assert str(Path.cwd()) not in text
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert "+cpu" not in text
    assert (folder / "code/atelier/models/sampling.py").is_file()
    artifacts = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert (
        artifacts["artifacts"]["base"]["path"] == "artifacts/" + Path(studio.model.source).name
    )


@pytest.fixture
def elsewhere(tmp_path_factory):
    """An environment with all packages but ours; its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    there = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    there.mkdir(parents=True, exist_ok=True)
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "atelier" not in path.name and path.name != "__pycache__":
            (there / path.name).symlink_to(path)
    uvicorn = folder / "bin/uvicorn"
    uvicorn.write_text(
        f"#!{folder}/bin/python\nimport sys\nfrom uvicorn.main import main\nsys.exit(main())\n"
    )
    uvicorn.chmod(0o755)
    return folder / "bin/python"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_saved_model_serves_without_the_clone(studio, notebook, saved, elsewhere):
    trained(studio, notebook)
    folder = saved()
    shutil.rmtree(Path.cwd() / "artifacts")
    shutil.rmtree(Path.cwd() / "base", ignore_errors=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    mine = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    away = mine | {"PATH": f"{elsewhere.parent}:/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    none = subprocess.run(
        [elsewhere, "-I", "-c", "import atelier"], env=away, cwd="/", capture_output=True
    )
    assert b"No module named 'atelier'" in none.stderr
    words = ["-I", "-m", "mlflow", "models", "serve", "--model-uri", str(folder)]
    words += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    log = folder.parent / "log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [elsewhere, *words], env=away, cwd="/", stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
    try:
        answer = json.load(asked(port, server, log))
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)

    (row,) = answer["predictions"]
    picture = Image.open(io.BytesIO(base64.b64decode(row["image"])))
    assert picture.size == (studio.model.pixels, studio.model.pixels)


def asked(port, server, log):
    """The answer of the model's server to one row, once it answers."""
    body = {"dataframe_records": [{"prompt": "a sea", "seed": 1}], "params": {"steps": 2}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    end = time.monotonic() + 400
    while True:
        try:
            return urllib.request.urlopen(request, timeout=300)
        except ConnectionError:
            pass
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode() + log.read_text()) from None
        except urllib.error.URLError:
            pass
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(1)


def test_a_large_base_is_named_and_not_copied(studio, monkeypatch):
    monkeypatch.setattr(saved_model, "_SMALL", 10)

    assert saved_model._base(studio) == {}
