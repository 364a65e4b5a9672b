import subprocess
import sys

import pytest
import yaml

META = {"gpu": 0, "memory": 0, "retries": 0, "timeout": 60, "silence": 30}
WORK = """
import sys, time
from pathlib import Path
if Path("break").exists():
    sys.exit("Error: out/draw is absent; run `dvc repro draw`")
for step in range(1, 5):
    print(f"train: step {step}/4 · loss {1 / step:.2g} · 3 images/s · ETA 0:01", flush=True)
Path("out/train").write_text(Path("out/draw").read_text())
"""
STAGES = {
    "draw": {
        "desc": "Draw",
        "cmd": "mkdir -p out && cp params/starter.yaml out/draw",
        "params": [{"params/${profile}.yaml": ["colour"]}],
        "outs": ["out/draw"],
        "meta": META,
    },
    "train": {
        "desc": "Train",
        "cmd": "python work.py",
        "deps": ["out/draw"],
        "outs": ["out/train"],
        "meta": META | {"gpu": 1},
    },
    "look": {
        "desc": "Look",
        "cmd": "cat out/draw out/train > out/look",
        "deps": ["out/draw", "out/train"],
        "outs": ["out/look"],
        "meta": META,
    },
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small DVC repository: draw → train, both → look. The working directory is its root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    (tmp_path / "params/starter.yaml").write_text("colour: red\n")
    (tmp_path / "work.py").write_text(WORK)
    content = {"vars": ["params/profile.yaml"], "stages": STAGES}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    return tmp_path
