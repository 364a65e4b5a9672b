import math

import pytest
import torch

from atelier.objectives.mapo import _falling, mapo
from tests.atelier.objectives.conftest import number


def test_mapo_by_hand():
    # phi(x) = x / (e^x - 1); scale 2: phi(0.2) = 0.9033311, phi(0.202) = 0.9023980
    # margin = 1000 * 0.0009331 = 0.9331; -log sigmoid = 0.33170; 0.1 + 3 * 0.33170
    margin = 1000 * (0.2 / math.expm1(0.2) - 0.202 / math.expm1(0.202))

    loss = mapo(number(0.1), number(0.101), beta=3, scale=2)

    assert margin == pytest.approx(0.9331, abs=1e-4)
    assert loss.item() == pytest.approx(0.1 + 3 * math.log1p(math.exp(-margin)))
    assert loss.item() == pytest.approx(1.0951, abs=1e-4)


def published(win, lose, *, beta, scale):
    """MaPO once more, by the formula as it stands in the published description and code."""

    def odds(error):
        return (scale * error) / (torch.exp(scale * error) - 1)

    ratio = torch.nn.functional.logsigmoid(1000 * (odds(win) - odds(lose)))
    return win - beta * ratio


def test_mapo_is_its_published_formula_with_its_gradient():
    win, lose = torch.rand(2, 50, generator=torch.Generator().manual_seed(3)).double()
    win.requires_grad_()

    ours, theirs = (one(win, lose, beta=0.1, scale=0.5) for one in (mapo, published))

    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(one.sum(), win)[0] for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


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
