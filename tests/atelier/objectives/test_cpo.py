import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.objectives.cpo import cpo
from atelier.objectives.ddspo import ddspo
from tests.atelier.objectives.conftest import four, ones, scalar


def test_cpo_of_a_policy_equal_to_its_reference_costs_log_two():
    policy, _, win, lose = four()
    weights, has_loser = ones()

    loss = cpo(policy, policy, win, lose, beta=5000, weights=weights, has_loser=has_loser)

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_cpo_by_hand():
    # errors: (1-2)^2 = 1, ref (0-2)^2 = 4; lose (1-(-1))^2 = 4, ref (0-(-1))^2 = 1
    # margin = (1 - 4) - (4 - 1) = -6; logit = -0.5 * 0.2 * 0.5 * -6 = 0.3
    loss = cpo(
        scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0),
        beta=0.2, weights=torch.tensor([0.5]), has_loser=torch.tensor([True]),
    )  # fmt: skip

    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.3)))


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0.1, 5))
def test_the_squared_and_the_inner_product_form_of_cpo_agree(seed, beta, weight):
    policy, reference, win, lose = four(seed)
    weights = torch.full((3,), weight, dtype=torch.float64)

    loss = cpo(
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
        cpo(
            policy, reference, win, lose, beta=0.01, weights=weights, has_loser=has_loser
        ).sum().backward()
        cosine = torch.nn.functional.cosine_similarity(
            -policy.grad.flatten(1), (win - lose).flatten(1)
        )
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_ddspo_of_equal_weights_is_the_loss_of_cpo():
    weights, has_loser = ones()
    arguments = {"beta": 2, "weights": weights, "has_loser": has_loser}

    torch.testing.assert_close(ddspo(*four(), **arguments), cpo(*four(), **arguments))


def test_ddspo_is_weighted_from_outside_by_hand():
    # The margin of test_cpo_by_hand, -6; logit = -0.5 * 0.2 * -6 = 0.6, weight 0.5
    loss = ddspo(
        scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0),
        beta=0.2, weights=torch.tensor([0.5]), has_loser=torch.tensor([True]),
    )  # fmt: skip

    assert loss.item() == pytest.approx(0.5 * math.log1p(math.exp(-0.6)))


@pytest.mark.parametrize("loss", [cpo, ddspo])
def test_the_gradient_of_the_logistic_losses_is_the_finite_difference(loss):
    policy, reference, win, lose = four(batch=1)
    policy, reference, win, lose = (one[..., :2, :2] for one in (policy, reference, win, lose))
    weights, has_loser = ones(1)

    assert torch.autograd.gradcheck(
        lambda at: loss(at, reference, win, lose, beta=2, weights=weights, has_loser=has_loser),
        [policy.clone().requires_grad_()],
    )
