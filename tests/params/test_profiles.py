from pathlib import Path

import pytest
import yaml

from atelier.config.profile import Profile, read_profile, read_study
from atelier.errors import ParamsError
from atelier.reports.study import design
from flows.dvc.overrides import changed

PARAMS = Path(__file__).parents[2] / "params"
STUDIES = sorted(PARAMS.glob("study*.yaml"))
NO_PROFILES = {PARAMS / "profile.yaml", *STUDIES}
PROFILES = sorted(file for file in PARAMS.glob("*.yaml") if file not in NO_PROFILES)


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_profile_says_all_that_is_asked(file):
    profile = read_profile(file)

    # A base that is trained here may be made later; stages depend on the others' folders.
    assert profile.base is not None or (file.parents[1] / "base" / file.stem).is_dir()
    assert (PARAMS / "criteria" / profile.annotate.criteria).is_file()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_fits_its_profile(file):
    study = read_study(file)
    values = changed(
        yaml.safe_load((PARAMS / f"{study.profile}.yaml").read_text()),
        study.settings,
        "settings",
    )

    chosen = {one: next(iter(design.trainings(study, one))) for one in design.entrants(study)}
    steps = {f"{stage}.training.steps": 60 for stage in ("sft", "cpo")}
    for one in [*design.first_runs(study), *design.later_runs(study, chosen, steps)]:
        Profile.model_validate(changed(values, one.changes, "changes"))


def test_a_name_of_any_length_gives_a_short_message(tmp_path):
    file = tmp_path / "study.yaml"
    text = (PARAMS / "study.yaml").read_text()
    file.write_text(text.replace("proposed: [", f"proposed: [{'a' * 100_000}, ", 1))

    with pytest.raises(ParamsError, match=r"a{80}.*…") as refusal:
        read_study(file)

    assert len(str(refusal.value)) < 1_000
