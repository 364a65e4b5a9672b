import math

import pytest
import torch

from atelier.objectives.cpo import cpo
from atelier.objectives.cpo_s import cpo_s, fixed_point, loser_target
from atelier.training.denoising_error import denoising_error
from tests.atelier.objectives.conftest import four, ones, scalar

KINDS = [
    ("mirror-winner", 0.0),
    ("mirror-winner", 0.7),
    ("mirror-winner", 6.0),
    ("mirror-policy", 0.25),
    ("mirror-policy", 0.5),
    ("mirror-reference", 0.5),
    ("mirror-reference", 2.0),
]


WITH_K = [
    *((kind, omega, None) for kind, omega in KINDS),
    ("mirror-winner", 6.0, 0.0),
    ("mirror-winner", 6.0, 0.3),
    ("mirror-winner", 2.0, 3.0),
    ("mirror-policy", 2.0, 0.4),
    ("mirror-policy", 0.2, 2.0),
]


@pytest.mark.parametrize("dpo_beta", [None, 0.01])
@pytest.mark.parametrize(("kind", "omega", "k"), WITH_K)
def test_descent_on_cpo_s_ends_at_its_fixed_point(kind, omega, k, dpo_beta):
    policy, reference, win, lose = four(batch=1)
    weights, has_loser = ones(1)
    point = policy.clone().requires_grad_()
    rate = 0.2 if dpo_beta is None else 60  # at the reference the frame lets beta / 4 through
    descent = torch.optim.SGD([point], lr=rate * point[0].numel())

    for _ in range(500):
        descent.zero_grad()
        cpo_s(
            point, reference, win, lose,
            kind=kind, omega=omega, k=k, dpo_beta=dpo_beta, weights=weights,
            has_loser=has_loser,
        ).sum().backward()  # fmt: skip
        descent.step()

    expected = fixed_point(reference, win, lose, kind=kind, omega=omega, k=k)
    torch.testing.assert_close(point.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_the_frame_costs_log_two_where_policy_and_reference_agree(kind, omega):
    policy, _, win, lose = four()
    weights, has_loser = ones()

    loss = cpo_s(
        policy, policy, win, lose,
        kind=kind, omega=omega, dpo_beta=500, weights=weights, has_loser=has_loser,
    )  # fmt: skip

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_the_frame_by_hand():
    # win: (1-2)^2 = 1, reference (0-2)^2 = 4; target 2 + 0.5 * 3 = 3.5: 6.25 and 12.25
    # m = (1 - 4) + 2 * (6.25 - 12.25) = -15; logit = -0.5 * 0.1 * 0.5 * -15 = 0.375
    loss = cpo_s(
        scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0),
        kind="mirror-winner", omega=0.5, k=2, dpo_beta=0.1, weights=torch.tensor([0.5]),
        has_loser=torch.tensor([True]),
    )  # fmt: skip

    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.375)))


@pytest.mark.parametrize(("kind", "omega", "k"), WITH_K)
def test_the_gradient_in_the_frame_is_that_of_the_sum_times_what_dpo_lets_through(
    kind, omega, k
):
    policy, reference, win, lose = four()
    weights, has_loser = ones()
    beta = 0.7

    def gradient(dpo_beta):
        point = policy.clone().requires_grad_()
        losses = cpo_s(
            point, reference, win, lose,
            kind=kind, omega=omega, k=k, dpo_beta=dpo_beta, weights=weights,
            has_loser=has_loser,
        )  # fmt: skip
        losses.sum().backward()
        return losses.detach(), point.grad

    (_, plain), (framed_loss, framed) = gradient(None), gradient(beta)

    share = beta / 2 * (1 - torch.exp(-framed_loss)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(framed, share * plain, rtol=1e-9, atol=1e-12)


def test_k_of_one_is_the_readings_own_and_zero_is_the_winner_alone():
    policy, reference, win, lose = four()
    weights, has_loser = ones()

    def loss(k):
        return cpo_s(
            policy, reference, win, lose,
            kind="mirror-winner", omega=4, k=k, weights=weights, has_loser=has_loser,
        )  # fmt: skip

    assert torch.equal(loss(1), loss(None))
    torch.testing.assert_close(loss(0), denoising_error(policy, win))


def test_fixed_points_by_hand():
    reference, win, lose = scalar(0.0), scalar(2.0), scalar(-1.0)

    def at(kind, omega):
        return fixed_point(reference, win, lose, kind=kind, omega=omega).item()

    assert at("mirror-winner", 4.0) == 2 + 2 * 3
    assert at("mirror-policy", 0.5) == 2 + 1 * 3
    assert at("mirror-reference", 1.0) == (2 + 1 * 1) / 2


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_mirror_policy_and_mirror_winner_agree_at_equal_strength(strength):
    _, reference, win, lose = four()

    by_policy = fixed_point(
        reference, win, lose, kind="mirror-policy", omega=strength / (1 + strength)
    )
    by_winner = fixed_point(reference, win, lose, kind="mirror-winner", omega=2 * strength)

    torch.testing.assert_close(by_policy, by_winner)


@pytest.mark.parametrize("omega", [1.0, 1.5])
def test_mirror_policy_refuses_omega_of_one_or_more(omega):
    weights, has_loser = ones()

    with pytest.raises(ValueError, match="omega < 1"):
        cpo_s(*four(), kind="mirror-policy", omega=omega, weights=weights, has_loser=has_loser)


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_the_loser_target_carries_no_gradient(kind, omega):
    policy, reference, win, lose = (tensor.requires_grad_() for tensor in four().clone())

    target = loser_target(policy, reference, win, lose, kind=kind, omega=omega)

    assert not target.requires_grad


@pytest.mark.parametrize("loss", ["cpo", "cpo-s"])
def test_gradients_reach_the_policy_and_nothing_else(loss):
    policy, reference, win, lose = (tensor.clone().requires_grad_() for tensor in four())
    weights, has_loser = ones()

    if loss == "cpo":
        value = cpo(policy, reference, win, lose, beta=1, weights=weights, has_loser=has_loser)
    else:
        value = cpo_s(
            policy, reference, win, lose,
            kind="mirror-reference", omega=1, weights=weights, has_loser=has_loser,
        )  # fmt: skip
    value.sum().backward()

    assert policy.grad.abs().sum() > 0
    assert reference.grad is win.grad is lose.grad is None


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_the_gradient_of_cpo_s_is_the_finite_difference(kind, omega):
    policy, reference, win, lose = four(batch=1)
    weights, has_loser = ones(1)
    target = loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    scale = omega if kind == "mirror-reference" else 1.0

    def value(at):
        # The target is held, as the stop-gradient holds it.
        return denoising_error(at, win) + scale * denoising_error(at, target)

    point = policy.clone().requires_grad_()
    cpo_s(
        point, reference, win, lose,
        kind=kind, omega=omega, weights=weights, has_loser=has_loser,
    ).sum().backward()  # fmt: skip
    direction = torch.randn(
        policy.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    difference = (value(policy + 1e-5 * direction) - value(policy - 1e-5 * direction)) / 2e-5

    assert (point.grad * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)


def test_an_image_without_a_loser_trains_the_winner_alone():
    policy, reference, win, lose = four()
    weights, _ = ones()
    nobody = torch.zeros(3, dtype=torch.bool)

    stable = cpo_s(
        policy, reference, win, lose,
        kind="mirror-winner", omega=5, weights=weights, has_loser=nobody,
    )  # fmt: skip
    logistic = cpo(policy, reference, win, lose, beta=2, weights=weights, has_loser=nobody)

    torch.testing.assert_close(stable, denoising_error(policy, win))
    gain = denoising_error(policy, win) - denoising_error(reference, win)
    torch.testing.assert_close(logistic, -torch.nn.functional.logsigmoid(-gain))


def test_an_omega_for_each_image_is_that_omega():
    policy, reference, win, lose = four()
    weights, has_loser = ones()
    omegas = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)

    def loss(omega):
        return cpo_s(
            policy, reference, win, lose,
            kind="mirror-winner", omega=omega, weights=weights, has_loser=has_loser,
        )  # fmt: skip

    expected = torch.stack([loss(omega)[row] for row, omega in enumerate(omegas.tolist())])
    torch.testing.assert_close(loss(omegas.reshape(-1, 1, 1, 1)), expected)
