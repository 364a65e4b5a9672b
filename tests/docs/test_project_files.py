import tomllib
from pathlib import Path

import yaml

import atelier

ROOT = Path(__file__).parents[2]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_installed_version_is_the_projects():
    assert atelier.__version__ == project()["version"]


def test_the_citation_names_a_released_version_and_the_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert f"## {citation['version']} (" in changelog
    assert citation["license"] == project()["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert citation["preferred-citation"]["url"].endswith("2601.04300")


def test_the_changelog_says_nothing_twice():
    lines = [
        line
        for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("- ")
    ]

    assert len(set(lines)) == len(lines)


def test_the_workflows_run_targets_that_the_makefile_has():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        assert runs
        for run in runs:
            assert run.startswith("make ")
            assert f"\n{run.removeprefix('make ')}: " in makefile
