"""Guides followed to the letter: docs/bring-your-own-domain.md, docs/tutorials/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs/bring-your-own-domain.md"
TUTORIALS = ("pictures", "compare", "people", "criteria")  # each continues the one before
_BLOCK = re.compile(r"^```(console|yaml)(?: (file|merge)=(\S+))?\n(.*?)^```$", re.M | re.S)


def steps(text):
    """What a reader does: (what, with what, what is to be seen afterwards)."""
    for kind, verb, target, body in _BLOCK.findall(text):
        if kind == "yaml":
            yield verb, target, body
            continue
        for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            yield "run", command, shown


def merged(old, new):
    """``old`` with the values of ``new`` in their places; a value with a kind is whole."""
    if not (isinstance(old, dict) and isinstance(new, dict)) or {"kind", "rule"} & new.keys():
        return new
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


def test_the_guide_has_steps_of_each_sort():
    taken = list(steps(GUIDE.read_text(encoding="utf-8")))

    assert {verb for verb, _, _ in taken} == {"run", "file", "merge"}
    assert sum(verb == "run" for verb, _, _ in taken) > 15


@pytest.fixture
def newcomer(tmp_path, model_server):
    """A function that takes a step in a fresh clone, and returns what it printed."""
    if subprocess.run(["git", "clone", "-q", ROOT, "atelier"], cwd=tmp_path).returncode:
        pytest.skip("this is no git repository")
    home = tmp_path / "atelier"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(home),
        "COLUMNS": "120",
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "new@example.org" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")},
    }  # fmt: skip

    def take(verb, target, body):
        if verb == "file":
            (home / target).write_text(body, encoding="utf-8")
        elif verb == "merge":
            path = home / target
            body = body.replace("http://localhost:8000/v1", model_server.url)
            values = merged(yaml.safe_load(path.read_text()), yaml.safe_load(body))
            path.write_text(yaml.safe_dump(values, sort_keys=False))
        else:
            done = subprocess.run(
                target, shell=True, cwd=home, env=environment, text=True, timeout=1500,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {target}\n{done.stdout[-4000:]}"
            return done.stdout
        return ""

    return take


def follow(taken, newcomer, capsys):
    """Take the steps; what a page shows below a command has to be printed by it."""
    for verb, target, body in taken:
        printed = newcomer(verb, target, body)
        if verb == "run":
            with capsys.disabled():
                sys.stdout.write(f"\n$ {target}\n{printed[-3000:]}")
            seen = [" ".join(line.split()) for line in printed.splitlines()]
            for line in filter(None, body.splitlines()):
                assert " ".join(line.split()) in seen, f"$ {target}\n{printed}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_newcomer_gets_from_pictures_to_a_report(newcomer, tmp_path, capsys):
    taken = list(steps(GUIDE.read_text(encoding="utf-8")))
    installed = next(n for n, step in enumerate(taken) if step[1].startswith("pip install"))

    follow(taken[installed + 1 :], newcomer, capsys)

    assert (tmp_path / "atelier/artifacts/report/report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorials_are_typed_one_after_the_other(newcomer, tmp_path, capsys):
    for name in TUTORIALS:
        page = (ROOT / "docs/tutorials" / f"{name}.md").read_text(encoding="utf-8")
        follow(steps(page), newcomer, capsys)

    assert (tmp_path / "atelier/artifacts/survey/spring/key.json").is_file()
