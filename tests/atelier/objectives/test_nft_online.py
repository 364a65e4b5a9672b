import pytest
import torch

from atelier.models import adapters
from atelier.objectives.nft_online import NFTOnline
from atelier.objectives.objective import Setup
from tests.atelier.objectives.online import fitted, goes_on_bit_for_bit

ONLINE = NFTOnline(
    objective="nft-online", beta=1, clip=2, anchor=0, captions=1, group=6, sampling_steps=2,
    round_steps=3, decay_growth=0.25, decay_most=0.5, learning_rate=0.01,
)  # fmt: skip


def darkness(pixels):
    return (1e4 * (1 - pixels.mean((1, 2, 3)))).round()


def setup_of(painter, corpus, training, judge=darkness):
    return Setup(painter, corpus, training, "theta1", "theta", 0, judge=judge)


def test_a_round_is_painted_once_and_judged_once(pair, corpus, training):
    judged = []

    def judge(pixels):
        judged.append(len(pixels))
        return darkness(pixels)

    step = ONLINE.step(setup_of(pair, corpus, training, judge))
    with adapters.use(pair.network, "theta"):
        for number in range(4):
            for part in (slice(0, 2), slice(2, 3)):
                _, values = step(number, True, part)

    # Six pictures, three at once; the fourth step begins the second round.
    assert judged == [3, 3, 3, 3]
    assert values["judged"] == 12


@pytest.mark.parametrize("family", ["flux"])
def test_the_old_policy_follows_between_rounds_by_the_share_that_is_due(pair, corpus, training):
    setup = setup_of(pair, corpus, training)
    step = ONLINE.step(setup)
    policy = adapters.weights(pair.network, "theta")
    name = next(iter(policy))
    first = policy[name].detach().clone()

    with adapters.use(pair.network, "theta"):
        step(0, False)
        policy[name].data += 1
        step(2, False)
        held = setup.state[name].clone()
        step(3, False)
        second = setup.state[name].clone()
        step(9, False)

    assert torch.equal(held, first)
    torch.testing.assert_close(second, first + 0.75)  # it kept 0.25 · 1 of itself
    torch.testing.assert_close(setup.state[name], first + 0.875)  # min(0.25 · 3, 0.5)
    assert torch.equal(policy[name].detach(), first + 1)


@pytest.mark.parametrize("family", ["flux"])
def test_what_is_painted_is_the_old_policys(pair, corpus, training):
    shown = []

    def judge(pixels):
        shown.append(pixels.clone())
        return darkness(pixels)

    setups = [setup_of(pair, corpus, training, judge) for _ in range(2)]
    with adapters.use(pair.network, "theta"):
        steps = [ONLINE.step(setup) for setup in setups]
        steps[0](0, False)
        for parameter in adapters.weights(pair.network, "theta").values():
            parameter.data += 0.3
        steps[1](0, False)
        ONLINE.step(setup_of(pair, corpus, training, judge))(0, False)

    first, _, unmoved, _, moved, _ = shown
    assert torch.equal(first, unmoved)
    assert not torch.allclose(first, moved, atol=1e-3)


@pytest.mark.parametrize("family", ["flux"])
def test_the_policy_comes_to_paint_what_is_rewarded(pair, corpus, training, tmp_path):
    training = training.model_copy(
        update={"steps": 72, "batch_images": 8, "ema_decay": None, "report_steps": 6}
    )
    larger = {"group": 32, "clip": 1, "round_steps": 6, "learning_rate": 0.03}
    reports = []

    fitted(
        pair, ONLINE.model_copy(update=larger), setup_of(pair, corpus, training), tmp_path,
        lambda step, values: reports.append(values["negatives"]) if values else None,
    )  # fmt: skip

    # Pictures of a round differ by about 1% of their darkness.
    assert sum(reports[-3:]) < 0.99 * sum(reports[:3])


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize("killed_after", [2, 3, 4, 5])
def test_a_killed_round_goes_on_bit_for_bit(pair, corpus, training, tmp_path, killed_after):
    training = training.model_copy(update={"steps": 7, "checkpoint_steps": 1})
    goes_on_bit_for_bit(
        pair, ONLINE, lambda: setup_of(pair, corpus, training), tmp_path, killed_after
    )
