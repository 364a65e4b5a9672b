import pytest
import torch

PROMPTS = ["a sea", "calm"]
AFTER = 5  # <|im_end|> ⏎ <|im_start|> assistant ⏎


@pytest.fixture
def family():
    return "qwen_image"


@pytest.fixture
def noise(painter):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *painter.latent_shape(32), generator=generator)


def test_latents_are_the_codecs_by_channel_of_a_video_of_one_frame(painter):
    vae = painter.pipeline().vae
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1

    latents = painter.encode_images(pixels)

    plain = vae.encode(pixels[:, :, None]).latent_dist.mode()
    assert plain.shape == (2, 4, 1, 8, 8)
    for channel, (mean, spread) in enumerate(
        zip(vae.config.latents_mean, vae.config.latents_std, strict=True)
    ):
        torch.testing.assert_close(
            latents[:, channel], (plain[:, channel, 0] - mean) / spread, atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(
        painter.decode_latents(latents), vae.decode(plain).sample[:, :, 0], atol=1e-3, rtol=1e-3
    )


def test_the_words_before_the_prompt_are_left_out(painter):
    # The published template has 34 tokens before the prompt; the toy's vocabulary, too.
    condition = painter.encode_texts(["a sea", "", "a sea in blue"])

    assert condition["mask"].sum(1).tolist() == [2 + AFTER, AFTER, 4 + AFTER]
    assert painter.count_tokens("a sea in blue") == 4 + AFTER
    assert not condition["tokens"][0, 2 + AFTER :].any()


def test_padding_is_masked(painter, noise):
    condition = painter.encode_texts(PROMPTS)
    padding = (1 - condition["mask"])[..., None]
    other = {**condition, "tokens": condition["tokens"] + 9 * padding}
    time = torch.tensor([0.3, 0.8])

    torch.testing.assert_close(
        painter.predict(noise, time, other), painter.predict(noise, time, condition),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_guidance_keeps_the_length_of_the_prompts_own_prediction(painter, noise):
    condition, empty = painter.encode_texts(PROMPTS), painter.encode_texts([""])

    sampled = painter.sample(noise, condition, empty, steps=1, guidance=4.0)

    # One Euler step from t = 1 to t = 0 is x - v; lengths are of patches of 2 x 2 latents.
    moved = painter.pipeline()._pack_latents(noise - sampled, *noise.shape)
    own = painter.predict(noise, torch.ones(2), condition)
    packed = painter.pipeline()._pack_latents(own, *own.shape)
    torch.testing.assert_close(moved.norm(dim=-1), packed.norm(dim=-1), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(moved, packed, atol=1e-2)


def test_a_prompt_beyond_512_tokens_is_read(build):
    painter = build("qwen_image", text_tokens=600)
    condition = painter.encode_texts(["a sea in blue, " * 110 + "calm edges"])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *painter.latent_shape(32), generator=generator)

    sampled = painter.sample(
        noise, condition, painter.encode_texts([""]), steps=1, guidance=1.0
    )

    assert condition["mask"].sum() > 512
    expected = noise - painter.predict(noise, torch.ones(1), condition)
    torch.testing.assert_close(sampled, expected, atol=1e-3, rtol=1e-3)
