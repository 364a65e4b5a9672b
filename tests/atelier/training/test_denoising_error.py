import math

import pytest
import torch

from atelier.training.denoising_error import denoising_error, min_snr, weight


def test_denoising_error_by_hand():
    prediction = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 4.0], [3.0, 1.0]])

    # ((1-0)^2 + (2-4)^2) / 2 = 2.5; (9 + 1) / 2 = 5
    torch.testing.assert_close(denoising_error(prediction, target), torch.tensor([2.5, 5.0]))


def test_errors_are_float32_even_in_half_precision():
    prediction = torch.full((1, 1000), 1.001953125, dtype=torch.bfloat16)

    assert denoising_error(prediction, prediction * 0).dtype == torch.float32


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ"):
        denoising_error(torch.zeros(2, 3), torch.zeros(1, 3))


def test_weights_by_hand():
    snr = torch.tensor([0.0, 1.0, 3.0, math.inf])

    assert weight(snr, "constant").tolist() == [1, 1, 1, 1]
    assert weight(snr, "snr").tolist() == [0, 0.5, 0.75, 1]


def test_min_snr_weights_by_hand():
    snr = torch.tensor([0.5, 20.0, math.inf])

    # Of ε: min(snr, 5) / snr; of v: min(snr, 5) / (snr + 1)
    epsilon = min_snr(snr[:2], 1 / snr[:2], 5.0)
    velocity = min_snr(snr[:2], 1 / (1 + snr[:2]), 5.0)

    torch.testing.assert_close(epsilon, torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(velocity, torch.tensor([0.5 / 1.5, 5 / 21]))
    assert min_snr(snr[2:], torch.zeros(1), 5.0).item() == 0
