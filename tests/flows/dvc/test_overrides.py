import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from atelier.config.profile import read_profile
from atelier.errors import ParamsError
from flows.dvc import overrides
from flows.dvc.overrides import Changes

FILE = "params/starter.yaml"
OMEGA = {"cpo-s": {"omega": 2, "learning_rate": None}}  # as a form sends it


@pytest.fixture
def written(tmp_path, monkeypatch, profile):
    """The profile's file in a small DVC repository; returns its bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    text = "# by hand\n" + yaml.safe_dump(profile, sort_keys=False)  # with anchors
    (tmp_path / FILE).write_text(text)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    dvc("init", "-q", "--no-scm")
    return text


def dvc(*words):
    from dvc.cli import main  # in this process: a new one costs seconds

    assert main([*words]) == 0


def test_a_run_sees_the_changes_and_the_users_file_is_never_another(written, tmp_path):
    before = (tmp_path / FILE).stat().st_mtime_ns
    with overrides.in_force(Changes(objectives=OMEGA, seed=7, cpo_steps=9)):
        seen = read_profile(Path(FILE))
        assert (tmp_path / FILE).read_text() == written

    assert seen.cpo.objectives["cpo-s"].omega == 2
    assert seen.cpo.objectives["cpo"].beta == 500
    assert (seen.sft.training.seed, seen.generate.seed, seen.cpo.training.steps) == (7, 7, 9)
    assert seen.sft.training.steps == 4  # shares an anchor with cpo's
    assert (tmp_path / FILE).stat().st_mtime_ns == before
    assert Path.cwd() == tmp_path


def test_what_the_user_writes_during_a_changed_run_stays(written, tmp_path):
    with overrides.in_force(Changes(objectives=OMEGA)):
        (tmp_path / FILE).write_text(written + "# an afterthought\n")
        (tmp_path / "notes.md").write_text("ω 2 looks good\n")
        assert "afterthought" not in Path(FILE).read_text()

    assert (tmp_path / FILE).read_text() == written + "# an afterthought\n"
    assert (tmp_path / "notes.md").is_file()


def test_the_comments_of_a_changed_file_stay_where_no_anchor_forbids_it(written, tmp_path):
    plain = yaml.safe_dump(json.loads(json.dumps(yaml.safe_load(written))), sort_keys=False)
    (tmp_path / FILE).write_text(f"# by hand\n{plain}")

    with overrides.in_force(Changes(objectives=OMEGA)):
        said = Path(FILE).read_text()

    assert said.startswith("# by hand\n")
    assert yaml.safe_load(said)["cpo"]["objectives"]["cpo-s"]["omega"] == 2


def test_without_changes_nothing_is_copied(written, tmp_path):
    with overrides.in_force(Changes()):
        assert Path.cwd() == tmp_path
    assert not (tmp_path / ".dvc/tmp/atelier").exists()


def test_an_experiment_is_named_after_its_changes():
    changes = Changes(objectives=OMEGA, others={"cpo.objectives.cpo.beta": 9})

    assert overrides.named(changes) == "cpo-s-omega-2-cpo-beta-9"
    assert overrides.described(changes) == "cpo-s ω=2, cpo β=9"


def test_any_other_setting_by_its_name(written, tmp_path):
    with overrides.in_force(Changes(others={"cpo.objectives.cpo.beta": 9, "split.salt": "x"})):
        seen = read_profile(Path(FILE))

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


@pytest.mark.parametrize("mistake", [{"guidance": 0.5}, {"seed": 0.5}, {"steps": 3}])
def test_the_form_refuses_what_params_would(mistake):
    with pytest.raises(ValidationError):
        Changes(**mistake)
