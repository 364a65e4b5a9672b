import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from atelier.errors import ParamsError
from atelier.models.families.flux import Flux


@pytest.fixture
def family():
    return "flux"


def test_one_step_of_sampling_goes_against_the_velocity(painter):
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])

    sampled = painter.sample(noise, condition, empty, steps=1, guidance=1.0)

    # One Euler step from t = 1 to t = 0 is x - v.
    velocity = painter.predict(noise, torch.ones(2), condition)
    torch.testing.assert_close(sampled, noise - velocity, atol=1e-3, rtol=1e-3)


def test_encode_and_decode_use_the_codecs_shift_and_scale(painter):
    vae = painter.pipeline().vae
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    plain = painter.encode_images(pixels)
    decoded = painter.decode_latents(plain)

    vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)

    torch.testing.assert_close(
        painter.encode_images(pixels), (plain - 0.25) * 0.5, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        painter.decode_latents((plain - 0.25) * 0.5), decoded, atol=1e-3, rtol=1e-3
    )


def test_every_word_of_a_long_prompt_is_counted(painter):
    # ▁a ▁sea , ▁ h z </s>: words of the corpus are one token, others are spelt
    assert painter.count_tokens("a sea, hz") == 7


def test_words_of_the_corpus_are_one_token_as_they_are_written():
    from atelier.models.small import text_encoders

    caption = 'a painting, "Saint Francis", by Peter-Paul Rubens (1577)'
    _, tokenizer = text_encoders.t5(16, [caption])

    pieces = tokenizer.tokenize(caption)

    assert {"▁painting", "Saint", "▁Francis", "▁Peter", "Paul", "▁Rubens", "1577"} <= set(
        pieces
    )
    assert len(pieces) == 18  # ten words, six marks, and two spaces before a mark


@pytest.mark.parametrize(("side", "cells"), [(8, 16), (16, 64)])
def test_the_sampler_shifts_its_times_by_the_resolution(painter, side, cells):
    # FLUX.1's own: the shift's logarithm grows evenly from 0.5 at 256 cells to 1.15 at 4096.
    painter.pipeline().register_modules(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
            base_image_seq_len=256, max_image_seq_len=4096,
        )
    )  # fmt: skip
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    condition = painter.encode_texts(["a sea"])

    painter.sample(noise, condition, painter.encode_texts([""]), steps=4, guidance=1.0)

    shift = math.exp(0.5 + (cells - 256) / (4096 - 256) * (1.15 - 0.5))
    even = torch.tensor([1.0, 0.75, 0.5, 0.25])
    expected = shift * even / (1 + (shift - 1) * even)
    torch.testing.assert_close(painter.pipeline().scheduler.sigmas[:4], expected)


@pytest.fixture
def distilled(painter):
    """As FLUX.1-dev is: guidance is one of the network's inputs."""
    config = {**painter.network.config, "guidance_embeds": True}
    torch.manual_seed(0)
    network = FluxTransformer2DModel.from_config(config).eval()
    painter.pipeline().register_modules(transformer=network)
    return Flux(painter.pipeline(), text_tokens=12)


def test_a_distilled_model_trains_at_one_and_is_sampled_at_its_own_setting(distilled):
    calls = []
    distilled.network.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["guidance"]), with_kwargs=True
    )
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition, empty = distilled.encode_texts(["a sea", "calm"]), distilled.encode_texts([""])

    def sample(guidance, distilled_guidance):
        return distilled.sample(
            noise, condition, empty,
            steps=1, guidance=guidance, distilled_guidance=distilled_guidance,
        )  # fmt: skip

    sampled = sample(1.0, 1.0)
    velocity = distilled.predict(noise, torch.ones(2), condition)
    sample(1.0, 3.5)
    sample(4.0, 3.5)

    torch.testing.assert_close(sampled, noise - velocity, atol=1e-3, rtol=1e-3)
    # Sampling at 1, a pass of training, at 3.5, and with true guidance, which takes two passes.
    assert [guidance.tolist() for guidance in calls] == [
        [1, 1], [1, 1], [3.5, 3.5], [3.5, 3.5], [3.5, 3.5],
    ]  # fmt: skip


def test_a_distilled_model_has_to_be_told_what_its_guidance_input_reads(distilled, painter):
    noise, condition = torch.randn(1, 4, 8, 8), painter.encode_texts(["a sea"])

    with pytest.raises(ParamsError, match=r"distilled_guidance should be a number: .* 3\.5"):
        distilled.sample(noise, condition, condition, steps=1, guidance=1.0)


def test_t5_reads_512_tokens(build):
    reader = build("flux", text_tokens=512)
    long = "a sea in blue, " * 100  # five tokens each, and the end

    condition = reader.encode_texts([long, long + "calm edges"])

    assert reader.token_budget == 512
    assert condition["tokens"].shape == (2, 512, 16)
    assert reader.count_tokens(long) == 501
    assert not torch.allclose(condition["tokens"][0], condition["tokens"][1], atol=1e-3)
