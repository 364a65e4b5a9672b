import importlib
import json
from pathlib import Path

import pytest
import torch

from atelier.models import codec


def pictures(count=40, side=32, rank=5):
    """Pictures whose 4x4 patches lie in a space of ``rank`` dimensions around a mean."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(rank, 48, generator=generator)
    weights = torch.randn(count, (side // 4) ** 2, rank, generator=generator)
    patches = (weights @ basis) * 0.1 + 0.2
    return torch.nn.functional.fold(patches.transpose(1, 2), side, 4, stride=4)


def test_as_many_components_as_dimensions_lose_nothing():
    pixels = pictures(rank=5)
    fitted = codec.fit(pixels, 4, 5)

    decoded = fitted.decode(fitted.encode(pixels).latents).sample

    torch.testing.assert_close(decoded, pixels, atol=1e-4, rtol=0)


def test_latents_have_mean_zero_and_mean_variance_one():
    fitted = codec.fit(pixels := pictures(count=200), 4, 4)

    latents = fitted.encode(pixels).latents

    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert latents.var((0, 2, 3)).mean().item() == pytest.approx(1, abs=1e-3)


def test_half_whitening_keeps_the_order_of_importance():
    variances = codec.fit(p := pictures(count=200), 4, 4).encode(p).latents.var((0, 2, 3))

    assert (variances.diff() < 0).all()


def test_the_shape_is_the_pictures_over_the_patch():
    fitted = codec.fit(pictures(), 4, 3)

    assert fitted.encode(torch.zeros(2, 3, 64, 32)).latents.shape == (2, 3, 16, 8)


def test_it_survives_saving(tmp_path):
    fitted = codec.fit(pixels := pictures(), 4, 3)

    fitted.save_pretrained(tmp_path)
    loaded = codec.PatchPCA.from_pretrained(tmp_path)

    torch.testing.assert_close(
        loaded.encode(pixels).latents, fitted.encode(pixels).latents, atol=1e-3, rtol=1e-3
    )


def test_a_patch_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="power of two, is 6"):
        codec.fit(torch.zeros(1, 3, 12, 12), 6, 3)


@pytest.mark.parametrize("base", ["starter", "starter-sdxl"])
def test_every_class_of_ours_that_a_shipped_base_names_is_where_it_says(base):
    index = Path(__file__).parents[3] / "base" / base / "model_index.json"
    parts = json.loads(index.read_text())

    assert parts["vae"] == ["atelier.models.codec", "PatchPCA"]
    assert hasattr(importlib.import_module(parts["vae"][0]), parts["vae"][1])
