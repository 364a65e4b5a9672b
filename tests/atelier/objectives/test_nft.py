import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.models import adapters
from atelier.models.processes import RectifiedFlow
from atelier.objectives.cpo_s import cpo_s
from atelier.objectives.nft import NFT, advantages, fixed_point, nft, optimality
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.denoising_error import denoising_error
from tests.atelier.conftest import IMAGES
from tests.atelier.objectives.conftest import four, ones, scalar

BETAS = st.floats(0.05, 2)


def spread(good):
    return good.reshape(-1, 1, 1, 1)


def test_how_likely_a_picture_is_good_by_hand():
    advantages = torch.tensor([-9.0, -5.0, 0.0, 2.5, 7.0])

    assert optimality(advantages, clip=5).tolist() == [0, 0, 0.5, 0.75, 1]


def test_nft_by_hand():
    # x+ = 0.5 * 2 + 0.5 * 1 = 1.5, x- = 1.5 * 1 - 0.5 * 2 = 0.5, against 0
    # squares 2.25 and 0.25 over w = 1.5 and 0.5: (0.8 * 1.5 + 0.2 * 0.5) / 0.5
    good = torch.tensor([0.8])
    arguments = (scalar(2.0), scalar(1.0), scalar(0.0), good)

    assert nft(*arguments, beta=0.5).item() == pytest.approx(2.6)
    # Without w: (0.8 * 2.25 + 0.2 * 0.25) / 0.5
    assert nft(*arguments, beta=0.5, adaptive=False).item() == pytest.approx(3.7)


@given(st.integers(0, 2**31), BETAS)
def test_without_its_weights_it_is_a_square_around_its_fixed_point(seed, beta):
    policy, old, target, other = four(seed)
    good = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    aim = fixed_point(old, target, good, beta=beta)

    def apart(loss):
        """What two policies differ by: constants fall out."""
        return loss(policy) - loss(other)

    ours = apart(lambda at: beta * nft(at, old, target, good, beta=beta, adaptive=False))
    square = apart(lambda at: beta**2 * denoising_error(at, aim))

    torch.testing.assert_close(ours, square, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**31))
def test_with_beta_one_it_is_cpo_s_with_one_target_mirrored_at_the_old_policy(seed):
    policy, old, target, _ = four(seed)
    generator = torch.Generator().manual_seed(seed)
    good = 0.1 + 0.8 * torch.rand(3, generator=generator, dtype=torch.float64)
    weights, has_loser = ones()

    stable = cpo_s(
        policy, old, target, target,
        kind="mirror-reference", omega=spread((1 - good) / good),
        weights=weights, has_loser=has_loser,
    )  # fmt: skip

    torch.testing.assert_close(
        nft(policy, old, target, good, beta=1, adaptive=False), good * stable
    )


@given(st.integers(0, 2**31), BETAS)
def test_of_clean_latents_it_is_that_of_velocities_times_the_time_squared(seed, beta):
    policy, old, clean, noise = four(seed)
    process, time = RectifiedFlow(), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    noisy = process.add_noise(clean, noise, time)
    good = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)

    implied = (process.denoised(noisy, at, time) for at in (policy, old))
    ours = nft(*implied, clean, good, beta=beta, adaptive=False)
    velocity = nft(
        policy, old, process.target(clean, noise, time), good, beta=beta, adaptive=False
    )

    torch.testing.assert_close(ours, time.square() * velocity, rtol=1e-9, atol=1e-9)


def test_a_picture_that_is_as_good_as_bad_teaches_nothing_at_the_old_policy():
    policy, _, clean, _ = four()
    at = policy.clone().requires_grad_()

    nft(at, policy, clean, torch.full((3,), 0.5), beta=1).sum().backward()

    assert at.grad.abs().max() < 1e-12


def test_the_weights_carry_no_gradient():
    policy, old, clean, _ = (one[:1, :, :2, :2] for one in four())
    good = torch.tensor([0.7], dtype=torch.float64)
    at = policy.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nft(at, old, clean, good, beta=0.5).sum(), at)

    plus, minus = 0.5 * policy + 0.5 * old, 1.5 * old - 0.5 * policy
    size = [(end - clean).abs().mean() for end in (plus, minus)]
    count = policy.numel()
    expected = 0.7 * 2 * (plus - clean) * 0.5 / count / size[0]
    expected -= 0.3 * 2 * (minus - clean) * 0.5 / count / size[1]

    torch.testing.assert_close(gradient, expected / 0.5)


OFFLINE = NFT(
    objective="nft", old="base", beta=1, clip=2, anchor=0, learning_rate=0.01
)  # fmt: skip


def test_an_advantage_is_against_the_pictures_of_the_same_caption():
    # Rewards -1, -6, -3, -2: mean -3, deviation sqrt((4 + 9 + 0 + 1) / 4); of group 0 -2
    found = advantages(torch.tensor([-1, -6, -3, -2]), torch.tensor([0, 1, 0, 0]))

    assert found.tolist() == pytest.approx([value / 3.5**0.5 for value in (1, -3, -1, 0)])


def test_pictures_that_are_alike_have_no_advantage():
    assert advantages(torch.full((3,), -2), torch.zeros(3).long()).tolist() == [0, 0, 0]


def error(painter, corpus, image, state):
    """How well a state predicts the noise of one image, over fixed noise and times."""
    generator = torch.Generator().manual_seed(5)
    clean = corpus.latents[[image]].expand(16, -1, -1, -1)
    noise = torch.randn(clean.shape, generator=generator)
    time = torch.linspace(0.2, 0.8, 16)
    noisy = painter.process.add_noise(clean, noise, time)
    condition = painter.encode_texts(["a sea"] * 16)
    with torch.no_grad(), adapters.use(painter.network, state):
        predicted = painter.predict(noisy, time, condition)
    target = painter.process.target(clean, noise, time)
    return denoising_error(predicted, target).mean().item()


@pytest.mark.parametrize("family", ["flux", "sdxl-v"])
def test_the_policy_gains_more_on_good_pictures_than_on_bad_ones(
    pair, corpus, training, tmp_path
):
    training = training.model_copy(
        update={"steps": 60, "batch_images": IMAGES, "ema_decay": None}
    )
    negatives = torch.tensor([0, 9, 9, 9, 9])
    setup = Setup(pair, corpus, training, "theta1", "theta", 0, negatives=negatives)

    with adapters.use(pair.network, "theta"):
        loop.fit(
            adapters.weights(pair.network, "theta"),
            OFFLINE.step(setup),
            learning_rate=OFFLINE.learning_rate,
            params=training,
            folder=tmp_path,
            report=lambda step, values: None,
        )

    good, *bad = (
        error(pair, corpus, image, None) - error(pair, corpus, image, "theta")
        for image in range(IMAGES)
    )
    assert good > 0 > sum(bad) / len(bad)
