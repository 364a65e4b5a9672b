"""Which stages run again after a change: dvc.yaml and its stage `code` are real, work is not.

Every other stage only notes that it ran, and writes something into each of its outs. `cpo`
also keeps the parts that it would keep, by the real keys.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import small_profile

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("atelier", "tasks")
WORK = """
import sys
from pathlib import Path

from atelier.config.profile import read_profile
from tasks.run import kept, paths
from tasks.training import objective_keys

name, *outs = sys.argv[1:]
profile = read_profile(paths.profile("toy"))
parts = objective_keys.of(profile) if name == "cpo" else {}
found = kept.take(paths.CPO, parts) if parts else set()
made = [f"{name}:{part}" for part in parts if part not in found]
with Path("ran.txt").open("a") as ran:
    ran.write("\\n".join([name, *made, ""]))
for out in map(Path, outs if not parts else [paths.CPO / part for part in parts]):
    if out.name not in found:
        out = out if out.suffix else out / "result.txt"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(name)
for part in parts.keys() - found:
    kept.seal(paths.CPO / part, parts[part])
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The repository's code and dvc.yaml with a toy profile, everything up to date."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dvcignore", ".")
    Path("work.py").write_text(WORK)
    Path("dvc.yaml").write_text(yaml.safe_dump(_without_work(), sort_keys=False))
    for folder in (
        "data",
        "labels",
        "certificates",
        "loras",
        "params/criteria",
        "base/toy",
        "base/starter/features",
    ):
        Path(folder).mkdir(parents=True)
        Path(folder, "input.txt").write_text("an input")
    Path("params/profile.yaml").write_text("profile: toy\n")
    Path("params/toy.yaml").write_text(yaml.safe_dump(small_profile()))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    every = [name for name in _without_work()["stages"] if name != "code"]
    assert [name for name in repro() if ":" not in name] == every
    return tmp_path


def _without_work():
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stages = content["stages"]
    for name, stage in stages.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        if name != "code":
            stage["cmd"] = f"python work.py {name} {' '.join(outs)}"
    return {"vars": content["vars"], "stages": stages}


def repro():
    """Bring everything up to date as `dvc repro` does; return which stages worked."""
    from dvc.repo import Repo

    Path("ran.txt").unlink(missing_ok=True)
    with Repo(".") as repo:
        repo.reproduce()
    with Repo(".") as repo:
        assert repo.status() == {}
    ran = Path("ran.txt")
    return ran.read_text().split() if ran.exists() else []


def replace(file, old, new):
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new, 1))


def test_a_template_and_a_metric_paint_nothing(house):
    replace("atelier/reports/evaluation_page.html.j2", "<", " <")
    assert repro() == ["report"]

    change(**{"evaluate.metrics": ["vendi"]})
    assert repro() == ["evaluate"]

    change(**{"report.grid_prompts": 3})
    assert repro() == ["report"]


def add_line(file):
    with Path(file).open("a") as code:
        code.write("_NEW = 1\n")


def test_words_and_places_run_nothing_and_a_changed_line_runs_the_stages_that_use_it(house):
    replace("atelier/criteria/tree.py", '"""', '"""A new word. ')
    replace("atelier/training/loop.py", "\nimport ", "\n# A comment.\nimport ")
    assert repro() == []

    Path("atelier/elsewhere").mkdir()
    Path("atelier/elsewhere/__init__.py").write_text('"""Another room."""\n')
    shutil.move("atelier/training/optimizers.py", "atelier/elsewhere")
    replace(
        "atelier/training/loop.py",
        "from atelier.training import checkpoints, optimizers",
        "from atelier.elsewhere import optimizers\nfrom atelier.training import checkpoints",
    )
    assert repro() == []

    add_line("atelier/criteria/splits.py")
    assert repro() == ["split"]


def test_a_changed_loss_concerns_the_objectives_that_use_it(house):
    add_line("atelier/objectives/dpo.py")
    assert repro() == []

    add_line("atelier/objectives/cpo_s.py")
    assert reasons("cpo") == (
        "code: atelier/objectives/cpo_s.py", "trains cpo-s", "keeps cpo"
    )  # fmt: skip
    assert repro() == ["cpo", "cpo:cpo-s", "generate", "report"]

    add_line("atelier/training/loop.py")
    assert [name for name in repro() if ":" in name] == ["cpo:cpo", "cpo:cpo-s"]


def objectives():
    return set(Path("artifacts/cpo").iterdir())


def change(**changes):
    """Change settings of the profile by dotted name; None removes one."""
    values = yaml.safe_load(Path("params/toy.yaml").read_text())
    for name, value in changes.items():
        *above, last = name.split(".")
        section = values
        for key in above:
            section = section[key]
        section[last] = value
        if value is None:
            del section[last]
    Path("params/toy.yaml").write_text(yaml.safe_dump(values))


def test_a_changed_added_or_removed_objective_concerns_no_other(house):
    change(**{"cpo.objectives.cpo-s.omega": 8.0})
    assert repro() == ["cpo", "cpo:cpo-s", "generate", "report"]

    dpo = {"objective": "dpo", "beta": 500, "learning_rate": 0.001}
    change(**{"cpo.objectives.dpo": dpo})
    assert reasons("cpo")[-2:] == ("trains dpo", "keeps cpo, cpo-s")
    assert repro() == ["cpo", "cpo:dpo", "generate", "report"]

    change(**{"cpo.objectives.cpo": None})
    assert repro() == ["cpo", "generate", "report"]
    assert objectives() == {Path("artifacts/cpo/cpo-s"), Path("artifacts/cpo/dpo")}

    shutil.rmtree("artifacts/cpo")
    assert repro() == []  # from DVC's cache
    change(**{"cpo.objectives": small_profile()["cpo"]["objectives"]})
    assert repro() == []  # the first result, from DVC's run cache


def reasons(stage):
    """Why a stage would run, as the code in this folder says."""
    look = "print(json.dumps(plan.look(stages.read())[sys.argv[1]].reasons))"
    words = f"import json, sys; from flows.dvc import plan, stages; {look}"
    said = subprocess.run(
        [sys.executable, "-c", words, stage], capture_output=True, text=True, check=True
    )
    return tuple(json.loads(said.stdout.splitlines()[-1]))


def test_a_lora_concerns_what_begins_as_it_and_no_other(house):
    Path("loras/a.safetensors").write_text("one")
    assert repro() == []  # nothing begins as it

    change(**{"sft.init": "loras/a.safetensors"})
    assert repro()[:1] == ["sft"]
    Path("loras/b.safetensors").write_text("another")
    assert repro() == []
    Path("loras/a.safetensors").write_text("trained on")
    assert reasons("sft") == ("loras/a.safetensors is another one",)
    assert repro()[:1] == ["sft"]

    change(**{"cpo.objectives.cpo-s.init": "loras/b.safetensors"})
    assert repro() == ["cpo", "cpo:cpo-s", "generate", "report"]
    Path("loras/b.safetensors").write_text("trained on, too")
    assert repro() == ["cpo", "cpo:cpo-s", "generate", "report"]
    Path("loras/a.safetensors").write_text("one")
    change(**{"sft.init": "base", "cpo.objectives.cpo-s.init": None})
    assert repro() == []  # the first result, from DVC's run cache
