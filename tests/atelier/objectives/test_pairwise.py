import pytest
import torch

from atelier.models import adapters
from atelier.objectives.dpo import DPO
from atelier.objectives.mapo import MaPO
from atelier.objectives.npo import NPO
from atelier.objectives.objective import Setup
from atelier.objectives.sdpo import SDPO
from atelier.training import loop
from atelier.training.corpus import Pairs

DPO_ = DPO(objective="dpo", beta=100, learning_rate=0.01)


NPO_ = NPO(objective="npo", beta=100, learning_rate=0.01, w=0, beside=["base"])


SDPO_ = SDPO(objective="sdpo", beta=100, slack=0, learning_rate=0.01)


MAPO = MaPO(objective="mapo", beta=1, scale=0.5, learning_rate=0.01)


@pytest.fixture
def pairs():
    win, lose = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 0])
    return Pairs(win, lose, torch.ones(3, dtype=torch.long), torch.tensor([1.0, 0.5, 1.0]))


def paired(painter, corpus, pairs, objective, training):
    training = training.model_copy(update={"batch_images": 6})
    return objective.step(Setup(painter, corpus, training, "theta1", "theta", 0, pairs))


@pytest.mark.parametrize("objective", [DPO_, NPO_, SDPO_])
def test_an_untrained_policy_costs_log_two_on_pairs(pair, corpus, pairs, training, objective):
    with adapters.use(pair.network, "theta"):
        loss, values = paired(pair, corpus, pairs, objective, training)(0, True)

    # Every pair is seen once; their weights are 1, 0.5 and 1.
    assert loss.item() == pytest.approx(0.6931472 * 2.5 / 3, abs=1e-3)
    assert values["gradient_factor"] == pytest.approx(0.5, abs=1e-3)
    assert values["drift"] == pytest.approx(0, abs=1e-4)


def test_both_pictures_of_a_pair_share_noise_time_and_caption(pair, corpus, pairs, training):
    corpus.latents[:] = corpus.latents[0]  # the same picture on both sides

    with adapters.use(pair.network, "theta"):
        _, values = paired(pair, corpus, pairs, DPO_, training)(0, True)

    assert values["win_error"] == pytest.approx(values["lose_error"], rel=1e-4)


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize(
    ("objective", "nearer"), [(DPO_, "win"), (SDPO_, "win"), (NPO_, "lose"), (MAPO, None)]
)
def test_pairs_teach_the_way_of_their_objective(
    pair, corpus, pairs, training, objective, nearer, tmp_path
):
    more = {"steps": 40, "ema_decay": None, "report_steps": 1, "batch_images": 6}
    training = training.model_copy(update=more)
    reports = []

    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            paired(pair, corpus, pairs, objective, training),
            learning_rate=objective.learning_rate,
            params=training,
            folder=tmp_path,
            report=lambda step, values: reports.append(values),
        )

    gains = {
        end: sum(one[f"{end}_error_reference"] - one[f"{end}_error"] for one in reports[20:])
        for end in ("win", "lose")
    }
    if nearer is None:  # MaPO has the winner's own loss, from which the loser gains too
        assert gains["win"] > 0
    else:
        assert max(gains, key=gains.get) == nearer


@pytest.mark.numerical
@pytest.mark.parametrize("family", ["flux"])
def test_a_small_step_of_sdpo_does_not_raise_the_winners_error(float64, pair, corpus, training):
    # Losers are the winners' pictures, stronger: where DPO leaves them, it leaves both.
    corpus.latents[3:] = 3 * corpus.latents[:2]
    policy = adapters.weights(pair.network, "theta")
    source = torch.Generator().manual_seed(7)
    for parameter in policy.values():
        torch.nn.init.normal_(parameter, std=0.1, generator=source)
    two = torch.tensor([0, 1])
    pairs = Pairs(two, two + 3, torch.ones(2, dtype=torch.long), torch.ones(2))
    training = training.model_copy(update={"batch_images": 4})

    def change(objective):
        before = {name: weight.detach().clone() for name, weight in policy.items()}
        step = objective.step(Setup(pair, corpus, training, "theta1", "theta", 0, pairs))
        with adapters.use(pair.network, "theta"):
            loss, values = step(0, True)
            gradients = torch.autograd.grad(loss, list(policy.values()))
            for weight, gradient in zip(policy.values(), gradients, strict=True):
                weight.data -= 0.1 * gradient
            _, after = step(0, True)
        for name, weight in policy.items():
            weight.data.copy_(before[name])
        return after["win_error"] - values["win_error"], values

    # With so small a beta both pairs count alike, and the mean is what is kept safe.
    raised, _ = change(DPO_.model_copy(update={"beta": 1e-3}))
    safe, values = change(SDPO_.model_copy(update={"beta": 1e-3}))
    slack, _ = change(SDPO_.model_copy(update={"beta": 1e-3, "slack": 0.5}))

    # The error is about 4 and its last bit 1e-15; the changes are about 1e-6.
    assert values["safe_share"] < 0.9
    assert raised > 1e-8
    assert safe < 0.02 * raised  # what is left is of second order
    assert slack < -0.02 * raised
