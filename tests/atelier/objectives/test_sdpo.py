import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.objectives.dpo import dpo
from atelier.objectives.sdpo import pull, safe_share
from tests.atelier.objectives.conftest import errors, number


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

    share = safe_share(down, up, slack=slack)

    change = -sum(
        (one * (one - share * other)).sum() for one, other in zip(down, up, strict=True)
    )
    assert 0 <= share <= 1
    assert change <= 1e-9


def test_the_safe_share_by_hand():
    def share(up, slack):
        return safe_share([number(2.0)], [number(up)], slack=slack).item()

    assert share(8.0, 0.0) == 4 / 16
    assert share(8.0, 0.2) == pytest.approx(0.8 * 4 / 16)
    assert share(1.0, 0.0) == 1  # already safe
    assert share(-3.0, 0.5) == 1  # losing gradients that help are let through


def test_pull_is_the_gradient_by_the_margin():
    win = errors()[0].requires_grad_()
    _, lose, base_win, base_lose = errors()

    loss = dpo(win, lose, base_win, base_lose, beta=7)
    loss.sum().backward()

    torch.testing.assert_close(pull(loss, 7), win.grad)
