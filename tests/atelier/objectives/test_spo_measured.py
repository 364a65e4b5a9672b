import math

import pytest
import torch

from atelier.models import adapters
from atelier.objectives.objective import Setup
from atelier.objectives.spo_measured import SPO, gaussian_log_ratio, spo
from atelier.training import loop
from tests.atelier.objectives.conftest import four, number


def test_spo_by_hand_and_its_trust_region():
    # log 1.05 and log 0.95 are inside of 1 ± 0.1: 10 (log 1.05 - log 0.95) = 1.00083
    inside = spo(number(math.log(1.05)), number(math.log(0.95)), beta=10, clip=0.1)
    assert inside.item() == pytest.approx(math.log1p(math.exp(-10 * math.log(1.05 / 0.95))))

    far = number(3.0).requires_grad_()
    spo(far, number(0.0), beta=10, clip=0.1).sum().backward()
    assert far.grad.item() == 0


def test_spo_of_a_policy_equal_to_its_reference_costs_log_two():
    taken, mean, _, _ = four()
    ratio = gaussian_log_ratio(taken, mean, mean, torch.ones(3))

    loss = spo(ratio, ratio, beta=10, clip=0.1)

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_the_log_ratio_of_two_gaussians_is_torchs():
    taken, policy, reference, _ = four()
    deviation = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    ratio = gaussian_log_ratio(taken, policy, reference, deviation)

    wide = deviation.reshape(-1, 1, 1, 1)
    densities = [
        torch.distributions.Normal(at, wide).log_prob(taken) for at in (policy, reference)
    ]
    torch.testing.assert_close(ratio, (densities[0] - densities[1]).flatten(1).mean(1))


MEASURED = SPO(
    objective="spo-measured", beta=10, clip=0.1, steps=10, untrained=2, churn=1.0, gap=1,
    learning_rate=0.01,
)  # fmt: skip


def stepwise(painter, corpus, training, judge):
    training = training.model_copy(update={"batch_images": 8})
    return MEASURED.step(Setup(painter, corpus, training, "theta1", "theta", 0, judge=judge))


def test_an_untrained_policy_costs_log_two_for_each_pair_of_outcomes(pair, corpus, training):
    judged = []

    def judge(pixels):
        assert pixels.shape[1] == 3
        judged.append(len(pixels))
        return torch.tensor([2, 1, 0, 5] if len(judged) == 1 else [2, 3, 1, 0])

    with adapters.use(pair.network, "theta"):
        loss, values = stepwise(pair, corpus, training, judge)(0, True)

    # The first image's outcomes tie; the three others are pairs.
    assert judged == [4, 4]
    assert loss.item() == pytest.approx(0.6931472 * 3 / 4, abs=1e-3)
    assert values["pairs"] == 0.75
    assert values["gradient_factor"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("family", ["flux"])
def test_the_policy_learns_to_take_the_better_judged_outcome(pair, corpus, training, tmp_path):
    def judge(pixels):
        return (1e5 * (1 - pixels.mean((1, 2, 3)))).round()  # darker is worse

    training = training.model_copy(
        update={"steps": 30, "ema_decay": None, "batch_images": 8, "report_steps": 1}
    )
    reports = []
    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            stepwise(pair, corpus, training, judge),
            learning_rate=0.003,
            params=training,
            folder=tmp_path,
            report=lambda step, values: reports.append(values),
        )

    late = [one["accuracy"] for one in reports[15:] if one["pairs"] > 0]
    assert sum(late) / len(late) > 0.6
    assert sum(r["negatives"] for r in reports[-8:]) < sum(r["negatives"] for r in reports[:8])
