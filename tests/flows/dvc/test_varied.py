"""Trainings of ``atelier vary``: which settings the copy gets, and what stays as it was."""

from pathlib import Path

import pytest
import yaml

from atelier.config.profile import read_in_force
from atelier.errors import ParamsError
from flows.dvc import varied
from tasks.commands import vary
from tasks.commands.vary import Wish
from tasks.run import paths


@pytest.fixture
def here(repository, profile, monkeypatch):
    """The small repository with a whole profile; what the copy was asked to paint."""
    (repository / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    seen = []

    def run(trained, wish, usual, made_by):
        seen.append((Path.cwd(), read_in_force(paths.PARAMS), trained, wish, usual, made_by))
        return []

    monkeypatch.setattr(vary, "run", run)
    monkeypatch.setattr(varied, "_reproduce", lambda: seen.append("repro"))
    return seen


def wish(*texts):
    variations = [vary.parse(text) for text in texts]
    return Wish(variations, "theta1", 4, 2, Path("out/vary"), Path("page.md"))


def test_values_of_an_objective_are_trained_in_one_stage_of_a_copy(here, repository):
    before = (repository / "params/starter.yaml").read_bytes()

    varied.run(wish("cpo.objectives.cpo-s.omega=0,2"), ["cpo.training.steps=3"])

    assert here[0] == "repro"
    place, in_force, trained, asked, usual, made_by = here[1]
    assert place != repository
    assert in_force == trained
    assert {name: one.omega for name, one in trained.cpo.objectives.items()} == {
        "cpo-s-omega-0": 0,
        "cpo-s-omega-2": 2,
    }
    assert trained.cpo.keep_targets
    assert trained.cpo.training.steps == usual.cpo.training.steps == 3
    assert usual.cpo.objectives["cpo-s"].omega == 4
    assert asked.out == repository / "out/vary"
    assert asked.document == repository / "page.md"
    assert made_by == {
        "profile": "starter",
        "settings": ["cpo.training.steps=3"],
        "commit": None,
        "uncommitted": False,
    }
    assert Path.cwd() == repository
    assert (repository / "params/starter.yaml").read_bytes() == before


def test_sampling_alone_needs_no_copy(here, repository):
    varied.run(wish("generate.steps=1,2"), [])

    ((place, in_force, trained, *_),) = here
    assert place == repository
    assert in_force == trained


@pytest.mark.parametrize(
    ("text", "change", "says"),
    [
        (
            "cpo.objectives.cpo-s.omega=-1",
            [],
            "input should be greater than or equal to 0, got -1",
        ),
        ("cpo.objectives.cpo-s.omga=1", [], "omga"),
        ("generate.steps=1,2", ["cpo.trainig.steps=1"], "'cpo.trainig.steps' is not a setting"),
        ("generate.steps=1,2", ["cpo.training.steps=-1"], "should be greater than 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_run(here, text, change, says):
    with pytest.raises(ParamsError, match=says):
        varied.run(wish(text), change)

    assert here == []
