import pytest
import yaml
from pydantic import ValidationError

from atelier.config.profile import read_profile
from atelier.errors import ParamsError
from flows.dvc import overrides
from flows.dvc.overrides import Changes

FILE = "params/starter.yaml"


@pytest.fixture
def written(tmp_path, monkeypatch, profile):
    """The profile's file in a working copy of its own; returns its bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    text = "# by hand\n" + yaml.safe_dump(profile, sort_keys=False)  # with anchors
    (tmp_path / FILE).write_text(text)
    return text


def test_a_run_sees_the_changes_and_the_file_is_as_before(written, tmp_path):
    with overrides.in_force(Changes(omega=2, seed=7, cpo_steps=9)):
        seen = read_profile(tmp_path / FILE)

    assert seen.cpo.objectives["cpo-s"].omega == 2
    assert seen.cpo.objectives["cpo"].beta == 500
    assert (seen.sft.training.seed, seen.generate.seed, seen.cpo.training.steps) == (7, 7, 9)
    assert seen.sft.training.steps == 4  # shares an anchor with cpo's
    assert (tmp_path / FILE).read_text() == written


def test_without_changes_the_file_is_not_touched(written, tmp_path):
    before = (tmp_path / FILE).stat().st_mtime_ns
    with overrides.in_force(Changes()):
        assert (tmp_path / FILE).stat().st_mtime_ns == before


def test_what_a_killed_run_left_is_put_back_by_the_next(written, tmp_path):
    killed = overrides.in_force(Changes(omega=2))
    killed.__enter__()
    assert (tmp_path / FILE).read_text() != written

    with overrides.in_force(Changes()):
        assert (tmp_path / FILE).read_text() == written


def test_any_other_setting_by_its_name(written, tmp_path):
    with overrides.in_force(Changes(others={"cpo.objectives.cpo.beta": 9, "split.salt": "x"})):
        seen = read_profile(tmp_path / FILE)

    assert (seen.cpo.objectives["cpo"].beta, seen.split.salt) == (9, "x")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"cpo.training.stepps": 4}, "'cpo.training.stepps' is not a setting of the profile"),
        ({"sft.lora.rank": 0}, "sft.lora.rank: input should be greater than 0, got 0"),
        ({"sft": 3}, "sft: input should be"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_changed(written, tmp_path, others, words):
    with pytest.raises(ParamsError, match=words), overrides.in_force(Changes(others=others)):
        pass

    assert (tmp_path / FILE).read_text() == written


@pytest.mark.parametrize("mistake", [{"omega": -1}, {"seed": 0.5}, {"steps": 3}])
def test_the_form_refuses_what_params_would(mistake):
    with pytest.raises(ValidationError):
        Changes(**mistake)
