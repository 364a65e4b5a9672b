import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from atelier.models import adapters
from atelier.models.costs import pass_cost
from tests.atelier import plain
from tests.atelier.conftest import NETWORKS, lora_params, network, toy_model


def costs(painter, family, folder, **changes):
    painter.pipeline().save_pretrained(folder)
    kind = family.partition("-")[0]
    params = toy_model(
        family=kind, source=str(folder), text_tokens=plain.TOKENS.get(kind, plain.FEWEST)
    )
    asked = {"half": False, "gradient_checkpointing": False} | changes
    return pass_cost.count(params, lora_params(), **asked), params


def test_flops_are_those_that_a_painter_with_weights_needs(painter, family, tmp_path):
    found, params = costs(painter, family, tmp_path)
    noisy = torch.zeros(1, *painter.latent_shape(params.pixels))
    # As many tokens as the encoder reads: Z-Image computes none of what a prompt lacks.
    condition = painter.encode_texts([" ".join(["sea"] * painter.token_budget)])
    adapters.add(painter.network, "policy", lora_params(), seed=0)

    with (
        adapters.use(painter.network, "policy"),
        sdpa_kernel(SDPBackend.MATH),  # torch cannot count the fused one of CPUs
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        painter.predict(noisy, torch.tensor([0.5]), condition)

    assert found.frozen == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert 1.9 < found.policy / found.frozen < 3


def test_passes_made_again_cost_more_and_hold_less(build, monkeypatch, tmp_path):
    deep = network("flux", double_blocks=6, single_blocks=6)
    monkeypatch.setitem(NETWORKS, "flux", deep)
    painter = build("flux")
    once, _ = costs(painter, "flux", tmp_path)
    again, _ = costs(painter, "flux", tmp_path, gradient_checkpointing=True)
    half, _ = costs(painter, "flux", tmp_path, half=True)

    assert again.frozen == once.frozen
    assert again.policy > once.policy
    assert again.held < 0.7 * once.held
    assert half.held < 0.7 * once.held
