import math

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
)

from atelier.errors import ArtifactError
from atelier.models.denoiser import FRAME
from atelier.models.families import sdxl
from atelier.models.loading import load
from tests.atelier.conftest import toy_model


@pytest.fixture
def family():
    return "sdxl-epsilon"


def asked(painter):
    """What the network is called with, in order."""
    calls = []
    painter.network.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    return calls


def paint(painter, steps=1, side=8, guidance=1.0):
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    condition, empty = painter.encode_texts(["a sea"]), painter.encode_texts([""])
    return noise, painter.sample(noise, condition, empty, steps=steps, guidance=guidance)


def test_the_noise_is_the_one_that_sdxl_was_trained_with(painter):
    # betas are linear in their roots from 0.00085 to 0.012 over 1000 steps
    roots = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64)
    expected = (1 - roots.square()).cumprod(0)

    assert painter.process.predicts == "epsilon"
    assert painter.process.alphas_cumprod.dtype == torch.float32
    torch.testing.assert_close(
        painter.process.alphas_cumprod.double(), expected, atol=1e-4, rtol=1e-3
    )


def test_a_half_precision_base_keeps_its_schedule_in_float32(painter):
    painter.pipeline().to(torch.bfloat16)

    again = sdxl.SDXL(painter.pipeline(), text_chunks=1)

    assert again.process.alphas_cumprod.dtype == torch.float32
    assert 0 < 1 - again.process.alphas_cumprod[0] < 0.001


def test_one_euler_step_by_hand(painter):
    # SDXL's scheduler takes its only step at training step 1. It starts from
    # x = noise * sqrt(1 + s^2), asks at x / sqrt(1 + s^2), and ends at x - s * eps.
    noise, sampled = paint(painter, steps=1)

    alpha2 = painter.process.alphas_cumprod[1]
    s = ((1 - alpha2) / alpha2).sqrt()
    eps = painter.predict(noise, torch.tensor([1 / 999]), painter.encode_texts(["a sea"]))
    torch.testing.assert_close(
        sampled, noise * (1 + s**2).sqrt() - s * eps, atol=1e-3, rtol=1e-3
    )


def test_time_is_the_training_step(painter):
    calls = asked(painter)
    noise = torch.zeros(3, 4, 8, 8)

    painter.predict(noise, torch.tensor([0.0, 0.5, 1.0]), painter.encode_texts(["a"] * 3))

    # 0.5 * 999 = 499.5, rounded to even
    assert calls[0][0][1].tolist() == [0, 500, 999]


def test_sizes_say_the_trained_square_in_training_and_in_sampling(painter):
    calls = asked(painter)

    paint(painter, side=10)
    painter.predict(torch.zeros(1, 4, 10, 10), torch.ones(1), painter.encode_texts(["a sea"]))

    for _, kwargs in calls:  # 10 cells of 4 pixels
        assert kwargs["added_cond_kwargs"]["time_ids"].tolist() == [[40, 40, 0, 0, 40, 40]]


def test_a_picture_that_says_its_frame_is_told_so_and_its_neighbour_too(painter):
    calls = asked(painter)
    frames = torch.tensor([[900.0, 600, 0, 12], [32, 32, 4, 0]])

    condition = {**painter.encode_texts(["a sea", "calm"]), FRAME: frames}
    painter.predict(torch.zeros(2, 4, 8, 10), torch.ones(2), condition)

    expected = [[900, 600, 0, 12, 32, 40], [32, 32, 4, 0, 32, 40]]
    assert calls[0][1]["added_cond_kwargs"]["time_ids"].tolist() == expected


def test_a_frame_that_says_the_uncropped_square_changes_nothing(painter):
    noise, condition = torch.randn(1, 4, 8, 8), painter.encode_texts(["a sea"])
    silent = painter.predict(noise, torch.ones(1), condition)

    told = {**condition, FRAME: torch.tensor([[32.0, 32, 0, 0]])}

    assert torch.equal(painter.predict(noise, torch.ones(1), told), silent)


def test_the_condition_is_what_the_pipeline_makes_of_the_prompt(painter):
    prompts = ["a sea in blue", "unknown wörds, 12 edges"]

    tokens, _, pooled, _ = painter.pipeline().encode_prompt(prompts)

    condition = painter.encode_texts(prompts)
    assert condition["tokens"].shape == (2, 77, 8 + 16)
    torch.testing.assert_close(condition["tokens"], tokens, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(condition["pooled"], pooled, atol=1e-3, rtol=1e-3)


def test_the_empty_prompt_is_what_the_pipeline_guides_against(painter):
    pipeline = painter.pipeline()

    def guided_against():
        _, tokens, _, pooled = pipeline.encode_prompt(["a sea"])
        return {"tokens": tokens, "pooled": pooled}

    zeros = painter.encode_texts(["", "a sea"])
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    worded = painter.encode_texts([""])

    assert all((tensor[0] == 0).all() and (tensor[1] != 0).any() for tensor in zeros.values())
    torch.testing.assert_close(worded, guided_against(), atol=1e-3, rtol=1e-3)
    assert not (worded["tokens"] == 0).all()


def test_tokens_are_counted_with_begin_and_end(painter):
    # <begin> a sea , h z <end>: words of the corpus are one token, others are spelt
    assert painter.count_tokens("a sea, hz") == 7
    assert painter.count_tokens("") == 2
    assert painter.token_budget == 77
    assert painter.count_tokens("sea " * 100) == 102


def test_a_picture_that_no_pipeline_accepts_is_rounded_down(painter):
    # 36 pixels are 9 cells of 4, and the pipeline wants multiples of 8 pixels
    assert painter.latent_shape(36) == (4, 8, 8)
    assert painter.latent_shape(40) == (4, 10, 10)


def kl_codec(force_upcast):
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.13025,
        force_upcast=force_upcast,
    ).eval()


def saved_with(painter, vae, folder):
    painter.pipeline().register_modules(vae=vae)
    painter.pipeline().save_pretrained(folder)
    return toy_model(family="sdxl", source=str(folder), dtype="float16", text_tokens=77)


def test_a_codec_that_overflows_in_half_precision_stays_in_float32(painter, tmp_path):
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    own = kl_codec(force_upcast=True)

    loaded = load(saved_with(painter, own, tmp_path))

    assert loaded.network.dtype == torch.float16
    assert loaded.pipeline().vae.dtype == torch.float32
    expected = own.encode(pixels).latent_dist.mode() * 0.13025
    torch.testing.assert_close(loaded.encode_images(pixels), expected, atol=1e-3, rtol=1e-3)


def test_a_codec_that_does_not_obeys_the_params(painter, tmp_path):
    loaded = load(saved_with(painter, kl_codec(force_upcast=False), tmp_path))

    assert loaded.pipeline().vae.dtype == torch.float16
    assert loaded.identity != painter.identity


@pytest.mark.parametrize(
    "scheduler",
    [EDMEulerScheduler(), EulerDiscreteScheduler(prediction_type="sample")],
)
def test_a_scheduler_of_another_process_is_refused(painter, scheduler):
    painter.pipeline().register_modules(scheduler=scheduler)

    with pytest.raises(ArtifactError, match="is no discrete variance-preserving process"):
        sdxl.SDXL(painter.pipeline(), text_chunks=1)
