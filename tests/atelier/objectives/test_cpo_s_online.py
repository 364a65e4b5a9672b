import pytest
import torch
from pydantic import ValidationError

from atelier.models import adapters
from atelier.objectives import teacher_targets
from atelier.objectives.cpo_s_online import CPOSOnline
from atelier.objectives.objective import Described, Setup
from tests.atelier.conftest import objective_params
from tests.atelier.objectives.online import goes_on_bit_for_bit

PLAIN = objective_params("cpo-s", omega=1.0, learning_rate=0.01)
OWN = {"captions": 1, "group": 6, "sampling_steps": 2, "round_steps": 3}
ONLINE = CPOSOnline.model_validate(
    PLAIN.model_dump() | OWN | {"objective": "cpo-s-online"}
)  # fmt: skip


def described(pixels, rows):
    """Two kinds of pictures: darker ones have a fault, which their prompts name."""
    dark = pixels.mean((1, 2, 3)) < pixels.mean()
    return Described(
        caption=["a sea"] * len(pixels),
        winner=["a sea, calm edges"] * len(pixels),
        loser=["a sea, harsh edges" if one else "a sea" for one in dark],
        negatives=dark.long(),
    )


def setup_of(painter, corpus, training, describe=described):
    return Setup(painter, corpus, training, "theta1", "theta", 0, describe=describe)


@pytest.mark.parametrize("family", ["flux", "sdxl-epsilon"])
def test_a_round_is_painted_and_annotated_once_and_counted(pair, corpus, training):
    seen = []

    def describe(pixels, rows):
        seen.append(len(pixels))
        return described(pixels, rows)

    step = ONLINE.step(setup_of(pair, corpus, training, describe))
    with adapters.use(pair.network, "theta"):
        for number in range(4):
            for part in (slice(0, 2), slice(2, 3)):
                _, values = step(number, True, part)

    # Six pictures, three at once; the fourth step begins the second round.
    assert seen == [3, 3, 3, 3]
    assert values["judged"] == 12
    assert values["negatives"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("family", ["flux"])
def test_a_step_is_that_of_cpo_s_on_the_pictures_of_the_round(pair, corpus, training):
    corpora = []
    setup = setup_of(pair, corpus, training)
    step = ONLINE.step(setup)

    def kept(objective, own):
        corpora.append(own.corpus)
        return usual(objective, own)

    usual = teacher_targets.step
    with pytest.MonkeyPatch.context() as patch, adapters.use(pair.network, "theta"):
        patch.setattr(teacher_targets, "step", kept)
        loss, _ = step(1, False)
        (own,) = corpora
        same, _ = PLAIN.step(
            Setup(pair, own, training, "theta1", "theta", 0)
        )(1, False)  # fmt: skip

    assert torch.equal(loss, same)
    assert loss.requires_grad
    assert len(own.latents) == 6
    # Pictures without a fault have their caption in the loser's place, and so no loser.
    faulty = own.rows["loser"] != own.rows["caption"]
    assert 0 < faulty.sum() < 6


@pytest.mark.parametrize("family", ["flux"])
def test_a_round_is_painted_by_the_policy_with_which_it_began(pair, corpus, training):
    shown = []

    def describe(pixels, rows):
        shown.append(pixels.clone())
        return described(pixels, rows)

    setup = setup_of(pair, corpus, training, describe)
    step = ONLINE.step(setup)
    policy = adapters.weights(pair.network, "theta")
    name = next(iter(policy))
    with adapters.use(pair.network, "theta"):
        step(0, False)
        began = setup.state[name].clone()
        for weight in policy.values():
            weight.data += 0.3
        step(2, False)
        held = setup.state[name].clone()
        step(3, False)

    assert torch.equal(held, began)
    assert torch.equal(setup.state[name], policy[name].detach())
    assert len(shown) == 4  # two parts of each round
    assert not torch.allclose(shown[0], shown[2], atol=1e-3)


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize("killed_after", [2, 4])
def test_a_killed_round_goes_on_bit_for_bit(pair, corpus, training, tmp_path, killed_after):
    training = training.model_copy(update={"steps": 7, "checkpoint_steps": 1})
    goes_on_bit_for_bit(
        pair, ONLINE, lambda: setup_of(pair, corpus, training), tmp_path, killed_after
    )


@pytest.mark.parametrize(
    "change", [{"omega": {"light": 1.0}}, {"confidence": "weighs"}], ids=["by root", "draws"]
)
def test_a_painted_picture_has_one_contrast(change):
    with pytest.raises(ValidationError, match="cpo-s-online has one contrast a picture"):
        CPOSOnline.model_validate(ONLINE.model_dump() | change)
