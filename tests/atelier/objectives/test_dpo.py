import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.objectives.cpo import cpo
from atelier.objectives.dpo import dpo, mean_beta, sum_beta, with_half
from atelier.objectives.mapo import mapo
from atelier.objectives.npo import npo
from atelier.objectives.spo_measured import spo
from atelier.training.denoising_error import denoising_error
from tests.atelier.objectives.conftest import errors, four, number, ones


def test_dpo_of_a_policy_equal_to_its_reference_costs_log_two():
    win, lose, _, _ = errors()

    loss = dpo(win, lose, win, lose, beta=5000)

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_dpo_by_hand():
    # margin = (0.1 - 0.2) - (0.5 - 0.3) = -0.3; logit = -0.5 * 10 * -0.3 = 1.5
    loss = dpo(number(0.1), number(0.5), number(0.2), number(0.3), beta=10)

    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.5)))


@given(st.integers(0, 2**31), st.floats(0.01, 1000))
def test_npo_is_dpo_with_the_pair_swapped(seed, beta):
    win, lose, base_win, base_lose = errors(seed)

    torch.testing.assert_close(
        npo(win, lose, base_win, base_lose, beta=beta),
        dpo(lose, win, base_lose, base_win, beta=beta),
    )
    # What one gains the other loses: sigmoid(x) + sigmoid(-x) = 1
    both = sum(
        torch.exp(-loss(win, lose, base_win, base_lose, beta=beta)) for loss in (dpo, npo)
    )
    torch.testing.assert_close(both, torch.ones_like(both))


@given(st.integers(0, 2**31))
def test_dpo_of_one_noisy_latent_and_two_targets_is_cpo(seed):
    policy, reference, win, lose = four(seed)
    weights, has_loser = ones()
    parts = [denoising_error(at, to) for at in (policy, reference) for to in (win, lose)]

    torch.testing.assert_close(
        dpo(*parts, beta=3),
        cpo(policy, reference, win, lose, beta=3, weights=weights, has_loser=has_loser),
    )


@given(st.floats(1, 10000), st.integers(1, 100000))
def test_conventions_of_beta_convert_there_and_back(beta, elements):
    assert mean_beta(sum_beta(beta, elements), elements) == pytest.approx(beta)


def test_betas_of_other_conventions_give_our_loss():
    win, lose, base_win, base_lose = errors()
    elements = 4 * 8 * 8
    margin = (win - base_win) - (lose - base_lose)
    ours = dpo(win, lose, base_win, base_lose, beta=100)

    summed = -torch.nn.functional.logsigmoid(-0.5 * sum_beta(100, elements) * margin * elements)
    unhalved = -torch.nn.functional.logsigmoid(-50 * margin)

    torch.testing.assert_close(summed, ours)
    torch.testing.assert_close(unhalved, ours)
    assert with_half(50) == 100


PAIR_LOSSES = {
    "dpo": lambda w, x, bw, bx: dpo(w, x, bw, bx, beta=3),
    "npo": lambda w, x, bw, bx: npo(w, x, bw, bx, beta=3),
    "mapo": lambda w, x, bw, bx: mapo(w, x, beta=2, scale=0.5),
    "spo": lambda w, x, bw, bx: spo(0.05 * w, 0.05 * x, beta=10, clip=0.1),
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_the_gradient_of_each_pair_loss_is_the_finite_difference(name):
    every = errors(batch=2)

    assert torch.autograd.gradcheck(
        lambda win, lose: PAIR_LOSSES[name](win, lose, *every[2:]),
        [every[0].clone().requires_grad_(), every[1].clone().requires_grad_()],
    )


@pytest.mark.parametrize("name", ["dpo", "npo"])
def test_no_gradient_reaches_the_reference_of_a_pair_loss(name):
    every = [one.clone().requires_grad_() for one in errors()]

    PAIR_LOSSES[name](*every).sum().backward()

    assert every[0].grad.abs().sum() > 0
    assert every[2].grad is every[3].grad is None
