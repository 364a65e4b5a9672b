"""Sweeps: what a person types, what is refused, and the points that are run."""

import importlib.util
import json

import pytest
import yaml
from prefect.logging import disable_run_logger
from prefect.states import Completed, Failed

from atelier.errors import ParamsError
from flows import sweep
from flows.sweep import Range

OMEGA = "cpo.objectives.cpo-s.omega"


@pytest.fixture
def here(tmp_path, monkeypatch, profile):
    """A folder with a profile; points give #A_neg by ω, and the FID of ω 8 is bad."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    (tmp_path / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    points, tables = [], []

    def bring_up(order, *, force, wanted, part):
        point = dict(wanted.others)
        points.append(point)
        omega = point[OMEGA]
        if omega == 5:
            return Failed(message="cpo failed")
        file = sweep.workspace.PLACE / sweep.paths.SUITES
        file.parent.mkdir(parents=True, exist_ok=True)
        mine = {"negatives": 9.0 - omega, "fid": 30.0 if omega == 8 else 5.0}
        base = {"negatives": 9.0, "fid": 10.0}
        file.write_text(json.dumps({"base": base, "theta1": base, "cpo-s": mine}))
        return Completed(name="Ran")

    monkeypatch.setattr(sweep.pipeline, "bring_up", bring_up)
    monkeypatch.setattr(sweep.stages, "read", lambda: [])
    monkeypatch.setattr(
        sweep, "create_table_artifact", lambda table, **named: tables.append(table)
    )
    return points, tables


def run(*words, trials=None, minutes=None):
    with disable_run_logger():
        return sweep.sweep.fn(sweep.parse(words), trials, minutes)


def test_what_is_typed_is_a_list_or_a_range():
    assert sweep.parse([f"{OMEGA}=1,2.5", "split.salt=a,b"]) == {
        OMEGA: [1, 2.5],
        "split.salt": ["a", "b"],
    }
    assert sweep.parse(["a=1..8", "b=log:0.001..0.1", "c=0.5..2"]) == {
        "a": Range(low=1, high=8, whole=True),
        "b": Range(low=0.001, high=0.1, log=True),
        "c": Range(low=0.5, high=2),
    }


def test_a_grid_runs_each_point_and_shows_the_best_first(here):
    points, tables = here

    state = run(f"{OMEGA}=1,3", "generate.prompts=4,8")

    assert points == [{OMEGA: o, "generate.prompts": p} for o in (1, 3) for p in (4, 8)]
    (table,) = tables
    assert [row["#A_neg"] for row in table] == [6.0, 6.0, 8.0, 8.0]
    assert sweep._line(table[0]) == (
        "cpo-s ω=3, generate.prompts=4: outcome Ran, best θ cpo-s, #A_neg 6.00, FID 5.00"
    )
    assert state.is_completed()
    assert "the best is cpo-s ω=3, generate.prompts=4: #A_neg 6.00" in state.message


def test_a_point_that_fails_is_shown_and_the_others_run(here):
    points, (tables) = here[0], here[1]

    state = run(f"{OMEGA}=5,6")

    assert len(points) == 2
    assert [row["outcome"] for row in tables[0]] == ["Ran", "Failed"]
    assert state.is_failed()


def test_no_point_begins_after_the_budget(here):
    state = run(f"{OMEGA}=1,2", minutes=0)

    assert here[0] == []
    assert "the time was over" in state.message


@pytest.mark.parametrize(
    ("words", "trials", "says"),
    [
        ([f"{OMEGA}=-1,2"], None, "omega"),
        (["cpo.omegaa=1,2"], None, "'cpo.omegaa' is not a setting"),
        ([f"{OMEGA}=1..8"], None, "is a range: give --trials"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_run(here, words, trials, says):
    with pytest.raises(ParamsError, match=says):
        sweep.check(sweep.parse(words), trials)

    assert run(*words, trials=trials).is_failed()
    assert here[0] == []


@pytest.mark.parametrize("word", ["omega", "omega=", "omega=8..1", "o=log:0..1", "o=a..b"])
def test_what_is_no_list_and_no_range_is_refused(word):
    with pytest.raises(ParamsError):
        sweep.parse([word])


@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is absent")
def test_optuna_goes_on_from_earlier_points_and_leaves_where_the_fid_is_bad(here):
    points, _ = here
    for _ in range(2):
        run(f"{OMEGA}=6,7,8", trials=4)

    assert len(points) == 8
    import optuna

    (study,) = optuna.get_all_study_summaries("sqlite:///artifacts/sweeps/optuna.db")
    assert study.n_trials == 8
    assert study.best_trial.params == {OMEGA: 7}
