import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.training import objectives

KINDS = [
    ("mirror-winner", 0.0),
    ("mirror-winner", 0.7),
    ("mirror-winner", 6.0),
    ("mirror-policy", 0.25),
    ("mirror-policy", 0.5),
    ("mirror-reference", 0.5),
    ("mirror-reference", 2.0),
]


def four(seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, batch, 4, 8, 8, generator=generator, dtype=torch.float64)


def ones(batch=3):
    return torch.ones(batch, dtype=torch.float64), torch.ones(batch, dtype=torch.bool)


def scalar(value):
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def test_denoising_error_by_hand():
    prediction = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 4.0], [3.0, 1.0]])

    # ((1-0)^2 + (2-4)^2) / 2 = 2.5; (9 + 1) / 2 = 5
    torch.testing.assert_close(
        objectives.denoising_error(prediction, target), torch.tensor([2.5, 5.0])
    )


def test_errors_are_float32_even_in_half_precision():
    prediction = torch.full((1, 1000), 1.001953125, dtype=torch.bfloat16)

    assert objectives.denoising_error(prediction, prediction * 0).dtype == torch.float32


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ"):
        objectives.denoising_error(torch.zeros(2, 3), torch.zeros(1, 3))


def test_cpo_of_a_policy_equal_to_its_reference_costs_log_two():
    policy, _, win, lose = four()
    weights, has_loser = ones()

    loss = objectives.cpo(
        policy, policy, win, lose, beta=5000, weights=weights, has_loser=has_loser
    )

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_cpo_by_hand():
    # errors: (1-2)^2 = 1, ref (0-2)^2 = 4; lose (1-(-1))^2 = 4, ref (0-(-1))^2 = 1
    # margin = (1 - 4) - (4 - 1) = -6; logit = -0.5 * 0.2 * 0.5 * -6 = 0.3
    loss = objectives.cpo(
        scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0),
        beta=0.2, weights=torch.tensor([0.5]), has_loser=torch.tensor([True]),
    )  # fmt: skip

    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.3)))


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0.1, 5))
def test_the_squared_and_the_inner_product_form_of_cpo_agree(seed, beta, weight):
    policy, reference, win, lose = four(seed)
    weights = torch.full((3,), weight, dtype=torch.float64)

    loss = objectives.cpo(
        policy, reference, win, lose,
        beta=beta, weights=weights, has_loser=torch.ones(3, dtype=torch.bool),
    )  # fmt: skip

    lean = ((policy - reference) * (win - lose)).flatten(1).mean(1)
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(beta * weight * lean))


def test_the_gradient_of_cpo_never_turns():
    # Wherever the policy stands, it is pushed along z^w - z^l: there is no minimiser.
    _, reference, win, lose = four()
    weights, has_loser = ones()

    for far in (0.0, 1.0, 100.0):
        policy = (reference + far * (win - lose)).requires_grad_()
        objectives.cpo(
            policy, reference, win, lose, beta=0.01, weights=weights, has_loser=has_loser
        ).sum().backward()
        cosine = torch.nn.functional.cosine_similarity(
            -policy.grad.flatten(1), (win - lose).flatten(1)
        )
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_descent_on_cpo_s_ends_at_its_fixed_point(kind, omega):
    policy, reference, win, lose = four(batch=1)
    weights, has_loser = ones(1)
    point = policy.clone().requires_grad_()
    descent = torch.optim.SGD([point], lr=0.05 * point[0].numel())

    for _ in range(1500):
        descent.zero_grad()
        objectives.cpo_s(
            point, reference, win, lose,
            kind=kind, omega=omega, weights=weights, has_loser=has_loser,
        ).sum().backward()  # fmt: skip
        descent.step()

    expected = objectives.fixed_point(reference, win, lose, kind=kind, omega=omega)
    torch.testing.assert_close(point.detach(), expected, atol=1e-6, rtol=0)


def test_fixed_points_by_hand():
    reference, win, lose = scalar(0.0), scalar(2.0), scalar(-1.0)

    def at(kind, omega):
        return objectives.fixed_point(reference, win, lose, kind=kind, omega=omega).item()

    assert at("mirror-winner", 4.0) == 2 + 2 * 3
    assert at("mirror-policy", 0.5) == 2 + 1 * 3
    assert at("mirror-reference", 1.0) == (2 + 1 * 1) / 2


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_mirror_policy_and_mirror_winner_agree_at_equal_strength(strength):
    _, reference, win, lose = four()

    by_policy = objectives.fixed_point(
        reference, win, lose, kind="mirror-policy", omega=strength / (1 + strength)
    )
    by_winner = objectives.fixed_point(
        reference, win, lose, kind="mirror-winner", omega=2 * strength
    )

    torch.testing.assert_close(by_policy, by_winner)


@pytest.mark.parametrize("omega", [1.0, 1.5])
def test_mirror_policy_refuses_omega_of_one_or_more(omega):
    policy, reference, win, lose = four()

    with pytest.raises(ValueError, match="omega < 1"):
        objectives.loser_target(policy, reference, win, lose, kind="mirror-policy", omega=omega)


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_the_loser_target_carries_no_gradient(kind, omega):
    policy, reference, win, lose = (tensor.requires_grad_() for tensor in four().clone())

    target = objectives.loser_target(policy, reference, win, lose, kind=kind, omega=omega)

    assert not target.requires_grad


@pytest.mark.parametrize("loss", ["cpo", "cpo-s"])
def test_gradients_reach_the_policy_and_nothing_else(loss):
    policy, reference, win, lose = (tensor.clone().requires_grad_() for tensor in four())
    weights, has_loser = ones()

    if loss == "cpo":
        value = objectives.cpo(
            policy, reference, win, lose, beta=1, weights=weights, has_loser=has_loser
        )
    else:
        value = objectives.cpo_s(
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
    target = objectives.loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    scale = omega if kind == "mirror-reference" else 1.0

    def value(at):
        # The target is held, as the stop-gradient holds it.
        return objectives.denoising_error(at, win) + scale * objectives.denoising_error(
            at, target
        )

    point = policy.clone().requires_grad_()
    objectives.cpo_s(
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

    stable = objectives.cpo_s(
        policy, reference, win, lose,
        kind="mirror-winner", omega=5, weights=weights, has_loser=nobody,
    )  # fmt: skip
    logistic = objectives.cpo(
        policy, reference, win, lose, beta=2, weights=weights, has_loser=nobody
    )

    torch.testing.assert_close(stable, objectives.denoising_error(policy, win))
    gain = objectives.denoising_error(policy, win) - objectives.denoising_error(reference, win)
    torch.testing.assert_close(logistic, -torch.nn.functional.logsigmoid(-gain))


def test_weights_by_hand():
    snr = torch.tensor([0.0, 1.0, 3.0, math.inf])

    assert objectives.weight(snr, "constant").tolist() == [1, 1, 1, 1]
    assert objectives.weight(snr, "snr").tolist() == [0, 0.5, 0.75, 1]
