import pytest
import torch

from atelier.models.processes import RectifiedFlow, VariancePreserving, ancestral

ALPHAS = torch.linspace(0.9999, 0.0047, 1000, dtype=torch.float64)
PROCESSES = [
    pytest.param(VariancePreserving(ALPHAS, "epsilon"), id="sdxl-epsilon"),
    pytest.param(VariancePreserving(ALPHAS, "v"), id="sdxl-v"),
    pytest.param(RectifiedFlow(), id="flux"),
]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_perfect_prediction_recovers_the_clean_latents(process):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=generator, dtype=torch.float64)
    time = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)

    noisy = process.add_noise(clean, noise, time)
    recovered = process.denoised(noisy, process.target(clean, noise, time), time)

    torch.testing.assert_close(recovered, clean)


@pytest.mark.parametrize("process", PROCESSES)
def test_noise_grows_with_time(process):
    time = torch.linspace(0.01, 1, 20, dtype=torch.float64)

    assert (process.snr(time).diff() < 0).all()


def test_variance_is_preserved():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 1, 300, 300, generator=generator, dtype=torch.float64)

    noisy = VariancePreserving(ALPHAS, "epsilon").add_noise(
        clean, noise, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    )

    torch.testing.assert_close(
        noisy.var((1, 2, 3)), torch.ones(3, dtype=torch.float64), atol=0.02, rtol=0
    )


def test_rectified_flow_by_hand():
    clean, noise = torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), -2.0)
    time = torch.tensor([0.25])
    process = RectifiedFlow()

    # x_t = 0.75 * 4 + 0.25 * -2 = 2.5; v = -2 - 4 = -6; snr = (0.75 / 0.25)^2 = 9
    assert process.add_noise(clean, noise, time).item() == 2.5
    assert process.target(clean, noise, time).item() == -6
    assert process.snr(time).item() == pytest.approx(9)


def test_the_least_noise_is_not_zero_in_bfloat16():
    process = VariancePreserving(torch.tensor([0.9991, 0.5]), "epsilon")
    clean = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)

    noisy = process.add_noise(clean, torch.ones_like(clean), torch.tensor([0.0]))

    # sigma = sqrt(1 - 0.9991) = 0.03; in bfloat16 alpha^2 rounds to 1 and sigma to 0
    assert noisy.item() == pytest.approx(0.03, rel=1e-3)


def test_a_time_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        RectifiedFlow().add_noise(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(2))


@pytest.mark.parametrize("process", PROCESSES)
def test_an_error_of_the_prediction_is_so_much_of_the_clean_latents(process):
    generator = torch.Generator().manual_seed(0)
    noisy, one, other = torch.randn(3, 4, 2, 8, 8, generator=generator, dtype=torch.float64)
    time = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)

    apart = process.denoised(noisy, one, time) - process.denoised(noisy, other, time)

    expected = process.clean_scale(time) * (one - other).square().flatten(1).mean(1)
    torch.testing.assert_close(apart.square().flatten(1).mean(1), expected)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_a_stochastic_step_of_a_perfect_prediction_keeps_the_marginals(process, churn):
    generator = torch.Generator().manual_seed(0)
    clean, noise, fresh = torch.randn(
        3, 2, 1, 300, 300, generator=generator, dtype=torch.float64
    )
    time, to = torch.tensor([0.5, 0.9]).double(), torch.tensor([0.4, 0.3]).double()
    noisy = process.add_noise(clean, noise, time)

    mean, deviation = ancestral(
        process, noisy, process.target(clean, noise, time), time, to, churn
    )
    taken = mean + deviation.reshape(2, 1, 1, 1) * fresh

    alpha, sigma = (scale.reshape(2, 1, 1, 1) for scale in process.scales(to))
    left = taken - alpha * clean
    torch.testing.assert_close(left.std((1, 2, 3)), sigma.flatten(), rtol=0.01, atol=0)
    assert (deviation == 0).all() == (churn == 0)


def test_a_step_with_all_the_noise_is_ddims_with_eta_one():
    # DDIM, Eq. 16: sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s)
    process = VariancePreserving(ALPHAS, "epsilon")
    time, to = torch.tensor([0.5]).double(), torch.tensor([0.4]).double()
    a_t, a_s = (ALPHAS[process.step(one)] for one in (time, to))

    _, deviation = ancestral(process, *torch.ones(2, 1, 1, 2, 2).double(), time, to, 1.0)

    expected = ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    torch.testing.assert_close(deviation, expected)
