import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from torch import nn

from atelier.models.costs.pass_memory import PassMemory, fused_attention

META = torch.device("meta")


def test_what_is_alive_together_counts_and_what_is_gone_does_not():
    first = torch.empty(1000, device=META)
    with PassMemory() as memory:
        second = first + 1  # 4,000 bytes
        third = second * 2  # 8,000
        del second
        fourth = third * 2  # 8,000 again
        del third, fourth
        first + 1  # 4,000

    assert memory.peak == 8000


def test_a_view_and_a_change_in_place_take_nothing():
    with PassMemory() as memory:
        made = torch.zeros(10, 100, device=META)
        made.T.reshape(-1)[:5].add_(1)
        made.add_(1)

    assert memory.peak == 2 * 4000  # the transposed one cannot be reshaped without a copy


def test_a_convolution_holds_the_larger_side_in_a_second_layout():
    wider = nn.Conv2d(2, 6, 1, device=META)
    given = torch.empty(1, 2, 10, 10, device=META)
    with PassMemory() as memory, torch.no_grad():
        wider(given)

    assert memory.peak == 4 * 100 * 6 * 2


def test_what_a_gradient_needs_is_kept_until_it_is_made():
    layers = nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(4))).to(META)
    given = torch.empty(1000, 10, device=META)
    with PassMemory() as frozen, torch.no_grad():
        layers(given)
    with PassMemory() as learning:
        layers(given)

    assert frozen.peak == 2 * 40_000
    assert learning.peak == 4 * 40_000


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderKLQwenImage"])
def test_passes_grow_with_the_area(kind):
    with META:
        codec = AutoencoderKL() if kind == "AutoencoderKL" else AutoencoderKLQwenImage()
    frames = () if kind == "AutoencoderKL" else (1,)
    peaks = []
    for side in (64, 128):
        with fused_attention(), PassMemory() as memory, torch.no_grad():
            codec.encode(torch.empty(1, 3, *frames, side, side, device=META))
        peaks.append(memory.peak)

    assert peaks[1] == pytest.approx(4 * peaks[0], rel=0.05)


def test_fused_attention_keeps_no_matrix():
    query = torch.empty(1, 2, 4096, 8, device=META)
    attend = torch.nn.functional.scaled_dot_product_attention
    with PassMemory() as matrices:
        attend(query, query, query)
    with fused_attention(), PassMemory() as fused:
        torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert matrices.peak > 2 * 4096**2 * 4
    assert fused.peak < 2 * query.nbytes
    assert torch.nn.functional.scaled_dot_product_attention is attend
