import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.objectives import losses

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
        losses.denoising_error(prediction, target), torch.tensor([2.5, 5.0])
    )


def test_errors_are_float32_even_in_half_precision():
    prediction = torch.full((1, 1000), 1.001953125, dtype=torch.bfloat16)

    assert losses.denoising_error(prediction, prediction * 0).dtype == torch.float32


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ"):
        losses.denoising_error(torch.zeros(2, 3), torch.zeros(1, 3))


def test_cpo_of_a_policy_equal_to_its_reference_costs_log_two():
    policy, _, win, lose = four()
    weights, has_loser = ones()

    loss = losses.cpo(
        policy, policy, win, lose, beta=5000, weights=weights, has_loser=has_loser
    )

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_cpo_by_hand():
    # errors: (1-2)^2 = 1, ref (0-2)^2 = 4; lose (1-(-1))^2 = 4, ref (0-(-1))^2 = 1
    # margin = (1 - 4) - (4 - 1) = -6; logit = -0.5 * 0.2 * 0.5 * -6 = 0.3
    loss = losses.cpo(
        scalar(1.0), scalar(0.0), scalar(2.0), scalar(-1.0),
        beta=0.2, weights=torch.tensor([0.5]), has_loser=torch.tensor([True]),
    )  # fmt: skip

    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.3)))


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0.1, 5))
def test_the_squared_and_the_inner_product_form_of_cpo_agree(seed, beta, weight):
    policy, reference, win, lose = four(seed)
    weights = torch.full((3,), weight, dtype=torch.float64)

    loss = losses.cpo(
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
        losses.cpo(
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
        losses.cpo_s(
            point, reference, win, lose,
            kind=kind, omega=omega, weights=weights, has_loser=has_loser,
        ).sum().backward()  # fmt: skip
        descent.step()

    expected = losses.fixed_point(reference, win, lose, kind=kind, omega=omega)
    torch.testing.assert_close(point.detach(), expected, atol=1e-6, rtol=0)


def test_fixed_points_by_hand():
    reference, win, lose = scalar(0.0), scalar(2.0), scalar(-1.0)

    def at(kind, omega):
        return losses.fixed_point(reference, win, lose, kind=kind, omega=omega).item()

    assert at("mirror-winner", 4.0) == 2 + 2 * 3
    assert at("mirror-policy", 0.5) == 2 + 1 * 3
    assert at("mirror-reference", 1.0) == (2 + 1 * 1) / 2


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_mirror_policy_and_mirror_winner_agree_at_equal_strength(strength):
    _, reference, win, lose = four()

    by_policy = losses.fixed_point(
        reference, win, lose, kind="mirror-policy", omega=strength / (1 + strength)
    )
    by_winner = losses.fixed_point(
        reference, win, lose, kind="mirror-winner", omega=2 * strength
    )

    torch.testing.assert_close(by_policy, by_winner)


@pytest.mark.parametrize("omega", [1.0, 1.5])
def test_mirror_policy_refuses_omega_of_one_or_more(omega):
    policy, reference, win, lose = four()

    with pytest.raises(ValueError, match="omega < 1"):
        losses.loser_target(policy, reference, win, lose, kind="mirror-policy", omega=omega)


@pytest.mark.parametrize(("kind", "omega"), KINDS)
def test_the_loser_target_carries_no_gradient(kind, omega):
    policy, reference, win, lose = (tensor.requires_grad_() for tensor in four().clone())

    target = losses.loser_target(policy, reference, win, lose, kind=kind, omega=omega)

    assert not target.requires_grad


@pytest.mark.parametrize("loss", ["cpo", "cpo-s"])
def test_gradients_reach_the_policy_and_nothing_else(loss):
    policy, reference, win, lose = (tensor.clone().requires_grad_() for tensor in four())
    weights, has_loser = ones()

    if loss == "cpo":
        value = losses.cpo(
            policy, reference, win, lose, beta=1, weights=weights, has_loser=has_loser
        )
    else:
        value = losses.cpo_s(
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
    target = losses.loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    scale = omega if kind == "mirror-reference" else 1.0

    def value(at):
        # The target is held, as the stop-gradient holds it.
        return losses.denoising_error(at, win) + scale * losses.denoising_error(at, target)

    point = policy.clone().requires_grad_()
    losses.cpo_s(
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

    stable = losses.cpo_s(
        policy, reference, win, lose,
        kind="mirror-winner", omega=5, weights=weights, has_loser=nobody,
    )  # fmt: skip
    logistic = losses.cpo(
        policy, reference, win, lose, beta=2, weights=weights, has_loser=nobody
    )

    torch.testing.assert_close(stable, losses.denoising_error(policy, win))
    gain = losses.denoising_error(policy, win) - losses.denoising_error(reference, win)
    torch.testing.assert_close(logistic, -torch.nn.functional.logsigmoid(-gain))


def test_weights_by_hand():
    snr = torch.tensor([0.0, 1.0, 3.0, math.inf])

    assert losses.weight(snr, "constant").tolist() == [1, 1, 1, 1]
    assert losses.weight(snr, "snr").tolist() == [0, 0.5, 0.75, 1]


def test_min_snr_weights_by_hand():
    snr = torch.tensor([0.5, 20.0, math.inf])

    # Of ε: min(snr, 5) / snr; of v: min(snr, 5) / (snr + 1)
    epsilon = losses.min_snr(snr[:2], 1 / snr[:2], 5.0)
    velocity = losses.min_snr(snr[:2], 1 / (1 + snr[:2]), 5.0)

    torch.testing.assert_close(epsilon, torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(velocity, torch.tensor([0.5 / 1.5, 5 / 21]))
    assert losses.min_snr(snr[2:], torch.zeros(1), 5.0).item() == 0


def errors(seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, batch, generator=generator, dtype=torch.float64)


def number(value):
    return torch.tensor([value], dtype=torch.float64)


def test_dpo_of_a_policy_equal_to_its_reference_costs_log_two():
    win, lose, _, _ = errors()

    loss = losses.dpo(win, lose, win, lose, beta=5000)

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_dpo_by_hand():
    # margin = (0.1 - 0.2) - (0.5 - 0.3) = -0.3; logit = -0.5 * 10 * -0.3 = 1.5
    loss = losses.dpo(number(0.1), number(0.5), number(0.2), number(0.3), beta=10)

    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.5)))


@given(st.integers(0, 2**31), st.floats(0.01, 1000))
def test_npo_is_dpo_with_the_pair_swapped(seed, beta):
    win, lose, base_win, base_lose = errors(seed)

    torch.testing.assert_close(
        losses.npo(win, lose, base_win, base_lose, beta=beta),
        losses.dpo(lose, win, base_lose, base_win, beta=beta),
    )
    # What one gains the other loses: sigmoid(x) + sigmoid(-x) = 1
    both = sum(
        torch.exp(-loss(win, lose, base_win, base_lose, beta=beta))
        for loss in (losses.dpo, losses.npo)
    )
    torch.testing.assert_close(both, torch.ones_like(both))


@given(st.integers(0, 2**31))
def test_dpo_of_one_noisy_latent_and_two_targets_is_cpo(seed):
    policy, reference, win, lose = four(seed)
    weights, has_loser = ones()
    parts = [losses.denoising_error(at, to) for at in (policy, reference) for to in (win, lose)]

    torch.testing.assert_close(
        losses.dpo(*parts, beta=3),
        losses.cpo(policy, reference, win, lose, beta=3, weights=weights, has_loser=has_loser),
    )


def test_ddspo_is_the_loss_of_cpo_whatever_the_teacher():
    weights, has_loser = ones()
    arguments = {"beta": 2, "weights": weights, "has_loser": has_loser}

    assert torch.equal(losses.ddspo(*four(), **arguments), losses.cpo(*four(), **arguments))


def test_mapo_by_hand():
    # phi(x) = x / (e^x - 1); scale 2: phi(0.2) = 0.2 / 0.2214027, phi(1) = 1 / 1.7182818
    margin = 0.2 / math.expm1(0.2) - 1 / math.expm1(1.0)

    loss = losses.mapo(number(0.1), number(0.5), beta=3, scale=2)

    assert loss.item() == pytest.approx(0.1 + 3 * math.log1p(math.exp(-margin)))


@pytest.mark.parametrize("error", [0.0, 1e-9, 1e-3, 1.0, 50.0, 1e3, 1e30])
def test_mapo_is_finite_with_its_gradient_wherever_errors_stand(error):
    win, lose = torch.tensor([error]).requires_grad_(), torch.tensor([1.0]).requires_grad_()

    losses.mapo(win, lose, beta=1, scale=1).sum().backward()

    assert win.grad.isfinite().all()
    assert lose.grad.isfinite().all()


def test_the_falling_function_of_mapo_has_no_step_where_its_form_changes():
    x = torch.tensor([0.0009999, 0.0010001], dtype=torch.float64, requires_grad=True)

    value = losses._falling(x)
    value.sum().backward()

    expected = x.detach() / torch.expm1(x.detach())
    torch.testing.assert_close(value.detach(), expected, rtol=1e-13, atol=0)
    assert abs(x.grad[0] - x.grad[1]).item() < 1e-6


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_sdpo_never_raises_the_winners_error_to_first_order(seed, slack):
    generator = torch.Generator().manual_seed(seed)
    down = [
        torch.randn(3, 2, generator=generator, dtype=torch.float64),
        torch.randn(5, generator=generator, dtype=torch.float64),
    ]
    mix = torch.rand((), generator=generator, dtype=torch.float64) * 10
    up = [
        mix * one + torch.randn(one.shape, generator=generator, dtype=torch.float64)
        for one in down
    ]

    share = losses.safe_share(down, up, slack=slack)

    change = -sum(
        (one * (one - share * other)).sum() for one, other in zip(down, up, strict=True)
    )
    assert 0 <= share <= 1
    assert change <= 1e-9


def test_the_safe_share_by_hand():
    def share(up, slack):
        return losses.safe_share([number(2.0)], [number(up)], slack=slack).item()

    assert share(8.0, 0.0) == 4 / 16
    assert share(8.0, 0.2) == pytest.approx(0.8 * 4 / 16)
    assert share(1.0, 0.0) == 1  # already safe
    assert share(-3.0, 0.5) == 1  # losing gradients that help are let through


def test_pull_is_the_gradient_by_the_margin():
    win = errors()[0].requires_grad_()
    _, lose, base_win, base_lose = errors()

    loss = losses.dpo(win, lose, base_win, base_lose, beta=7)
    loss.sum().backward()

    torch.testing.assert_close(losses.pull(loss, 7), win.grad)


def test_spo_by_hand_and_its_trust_region():
    # log 1.05 and log 0.95 are inside of 1 ± 0.1: 10 (log 1.05 - log 0.95) = 1.00083
    inside = losses.spo(number(math.log(1.05)), number(math.log(0.95)), beta=10, clip=0.1)
    assert inside.item() == pytest.approx(math.log1p(math.exp(-10 * math.log(1.05 / 0.95))))

    far = number(3.0).requires_grad_()
    losses.spo(far, number(0.0), beta=10, clip=0.1).sum().backward()
    assert far.grad.item() == 0


def test_spo_of_a_policy_equal_to_its_reference_costs_log_two():
    taken, mean, _, _ = four()
    ratio = losses.gaussian_log_ratio(taken, mean, mean, torch.ones(3))

    loss = losses.spo(ratio, ratio, beta=10, clip=0.1)

    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


def test_the_log_ratio_of_two_gaussians_is_torchs():
    taken, policy, reference, _ = four()
    deviation = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    ratio = losses.gaussian_log_ratio(taken, policy, reference, deviation)

    wide = deviation.reshape(-1, 1, 1, 1)
    densities = [
        torch.distributions.Normal(at, wide).log_prob(taken) for at in (policy, reference)
    ]
    torch.testing.assert_close(ratio, (densities[0] - densities[1]).flatten(1).mean(1))


@given(st.floats(1, 10000), st.integers(1, 100000))
def test_conventions_of_beta_convert_there_and_back(beta, elements):
    assert losses.mean_beta(losses.sum_beta(beta, elements), elements) == pytest.approx(beta)


def test_betas_of_other_conventions_give_our_loss():
    win, lose, base_win, base_lose = errors()
    elements = 4 * 8 * 8
    margin = (win - base_win) - (lose - base_lose)
    ours = losses.dpo(win, lose, base_win, base_lose, beta=100)

    summed = -torch.nn.functional.logsigmoid(
        -0.5 * losses.sum_beta(100, elements) * margin * elements
    )
    unhalved = -torch.nn.functional.logsigmoid(-50 * margin)

    torch.testing.assert_close(summed, ours)
    torch.testing.assert_close(unhalved, ours)
    assert losses.with_half(50) == 100


PAIR_LOSSES = {
    "dpo": lambda w, x, bw, bx: losses.dpo(w, x, bw, bx, beta=3),
    "npo": lambda w, x, bw, bx: losses.npo(w, x, bw, bx, beta=3),
    "mapo": lambda w, x, bw, bx: losses.mapo(w, x, beta=2, scale=0.5),
    "spo": lambda w, x, bw, bx: losses.spo(0.05 * w, 0.05 * x, beta=10, clip=0.1),
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


@pytest.mark.parametrize("loss", ["cpo", "ddspo"])
def test_the_gradient_of_the_logistic_losses_is_the_finite_difference(loss):
    policy, reference, win, lose = four(batch=1)
    policy, reference, win, lose = (one[..., :2, :2] for one in (policy, reference, win, lose))
    weights, has_loser = ones(1)

    assert torch.autograd.gradcheck(
        lambda at: getattr(losses, loss)(
            at, reference, win, lose, beta=2, weights=weights, has_loser=has_loser
        ),
        [policy.clone().requires_grad_()],
    )


def test_an_omega_for_each_image_is_that_omega():
    policy, reference, win, lose = four()
    weights, has_loser = ones()
    omegas = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)

    def loss(omega):
        return losses.cpo_s(
            policy, reference, win, lose,
            kind="mirror-winner", omega=omega, weights=weights, has_loser=has_loser,
        )  # fmt: skip

    expected = torch.stack([loss(omega)[row] for row, omega in enumerate(omegas.tolist())])
    torch.testing.assert_close(loss(omegas.reshape(-1, 1, 1, 1)), expected)
