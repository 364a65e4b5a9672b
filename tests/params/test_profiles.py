from pathlib import Path

import pytest

from atelier.params import read_profile

PARAMS = Path(__file__).parents[2] / "params"
NO_PROFILES = {"profile.yaml", "study.yaml"}
PROFILES = sorted(file for file in PARAMS.glob("*.yaml") if file.name not in NO_PROFILES)


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_profile_says_all_that_is_asked(file):
    profile = read_profile(file)

    # A base that is trained here may be made later; stages depend on the others' folders.
    assert profile.base is not None or (file.parents[1] / "base" / file.stem).is_dir()
    assert (PARAMS / "criteria" / profile.annotate.criteria).is_file()
