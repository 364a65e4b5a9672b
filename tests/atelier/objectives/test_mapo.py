import math

import pytest
import torch

from atelier.objectives.mapo import _falling, mapo
from tests.atelier.objectives.conftest import number


def test_mapo_by_hand():
    # phi(x) = x / (e^x - 1); scale 2: phi(0.2) = 0.2 / 0.2214027, phi(1) = 1 / 1.7182818
    margin = 0.2 / math.expm1(0.2) - 1 / math.expm1(1.0)

    loss = mapo(number(0.1), number(0.5), beta=3, scale=2)

    assert loss.item() == pytest.approx(0.1 + 3 * math.log1p(math.exp(-margin)))


@pytest.mark.parametrize("error", [0.0, 1e-9, 1e-3, 1.0, 50.0, 1e3, 1e30])
def test_mapo_is_finite_with_its_gradient_wherever_errors_stand(error):
    win, lose = torch.tensor([error]).requires_grad_(), torch.tensor([1.0]).requires_grad_()

    mapo(win, lose, beta=1, scale=1).sum().backward()

    assert win.grad.isfinite().all()
    assert lose.grad.isfinite().all()


def test_the_falling_function_of_mapo_has_no_step_where_its_form_changes():
    x = torch.tensor([0.0009999, 0.0010001], dtype=torch.float64, requires_grad=True)

    value = _falling(x)
    value.sum().backward()

    expected = x.detach() / torch.expm1(x.detach())
    torch.testing.assert_close(value.detach(), expected, rtol=1e-13, atol=0)
    assert abs(x.grad[0] - x.grad[1]).item() < 1e-6
