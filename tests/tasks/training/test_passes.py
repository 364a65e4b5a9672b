import pytest

from atelier.config.profile import Profile
from tasks.training import passes


@pytest.fixture
def checked(profile):
    profile["generate"] |= {"steps": 4, "guidance": 2.0}
    return Profile.model_validate(profile)


def test_a_step_of_a_training_costs_its_batch_for_each_state(checked):
    assert passes.of("sft", checked) == {"sft": {"policy": 2, "frozen": 0}}
    # The teacher gives winner and loser; CPO also needs its reference, CPO-S none.
    assert passes.of("cpo", checked) == {
        "cpo-s": {"policy": 2, "frozen": 4},
        "cpo": {"policy": 2, "frozen": 6},
    }


def test_guidance_takes_a_second_pass_for_each_step_of_a_picture(checked):
    assert passes.of("generate", checked) == {"paint": {"policy": 0, "frozen": 8}}
    assert passes.of("split", checked) == {}
