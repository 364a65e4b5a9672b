import pytest
import torch

from atelier.errors import ParamsError

CHAT = 8 + 4  # as of Z-Image, and an empty thought: <think> ⏎⏎ </think> ⏎⏎, of five marks


@pytest.fixture
def family():
    return "flux2_klein"


def test_latents_are_patches_whitened_by_the_codecs_batch_norm(painter):
    vae = painter.pipeline().vae
    pixels = torch.rand(3, 3, 32, 32) * 2 - 1

    latents = painter.encode_images(pixels)

    # A 2 x 2 patch of four channels, by hand: (channel, row, column) in this order.
    plain = vae.encode(pixels).latent_dist.mode()
    patch = plain[:, :, 2:4, 4:6].flatten(1)
    spread = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    assert latents.shape == (3, 16, 4, 4)
    torch.testing.assert_close(latents[:, :, 1, 2], (patch - vae.bn.running_mean) / spread)
    torch.testing.assert_close(
        painter.decode_latents(latents), vae.decode(plain).sample, atol=1e-3, rtol=1e-3
    )


def test_positions_have_four_axes(painter):
    asked = {}
    painter.network.register_forward_pre_hook(
        lambda module, given, named: asked.update(named), with_kwargs=True
    )
    latents = torch.randn(2, *painter.latent_shape(32))

    painter.predict(latents, torch.tensor([0.3, 0.8]), painter.encode_texts(["a", "sea"]))

    # text: its place along the last axis; picture: row and column along the second and third
    assert asked["txt_ids"][0, 3].tolist() == [0, 0, 0, 3]
    assert asked["img_ids"][1, 6].tolist() == [0, 1, 2, 0]
    assert asked["img_ids"].shape == (2, 16, 4)


def test_a_prompt_becomes_a_chat_without_thinking(painter):
    text = painter.pipeline().tokenizer.decode(
        painter.pipeline().tokenizer(
            painter.pipeline().tokenizer.apply_chat_template(
                [{"role": "user", "content": "a sea"}],
                tokenize=False, add_generation_prompt=True, enable_thinking=False,
            )
        ).input_ids
    )  # fmt: skip

    assert text == (
        "<|im_start|>user\na sea<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert painter.count_tokens("a sea in blue") - painter.count_tokens("a sea") == 2


def test_three_layers_are_read_side_by_side(painter):
    encoder, tokenizer = painter.pipeline().text_encoder, painter.pipeline().tokenizer
    found = painter.encode_texts(["a sea"])["tokens"]

    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a sea"}],
        tokenize=False, add_generation_prompt=True, enable_thinking=False,
    )  # fmt: skip
    ids = tokenizer(text, return_tensors="pt").input_ids
    states = encoder(ids, output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer] for layer in (9, 18, 27)], -1)
    assert found.shape == (1, painter.token_budget, 48)
    torch.testing.assert_close(found[:, : ids.shape[1]], expected, atol=1e-3, rtol=1e-3)


def test_a_distilled_base_refuses_guidance_which_its_sampler_ignores(painter):
    noise = torch.randn(1, *painter.latent_shape(32))
    condition = painter.encode_texts(["a sea"])
    painter.pipeline().register_to_config(is_distilled=True)

    with pytest.raises(ParamsError, match=r"guidance should be 1, is 3: this base is dist"):
        painter.sample(noise, condition, condition, steps=1, guidance=3.0)

    assert painter.sample(noise, condition, condition, steps=1, guidance=1.0).isfinite().all()


def test_after_training_began_the_codec_keeps_its_statistics_alone(painter):
    whole = painter.pipeline().vae  # validation images keep it
    before = sum(parameter.numel() for parameter in whole.parameters())

    painter.release_encoders()

    vae = painter.pipeline().vae
    assert sum(parameter.numel() for parameter in vae.parameters()) < 0.2 * before
    assert painter.pipeline().text_encoder is None
    assert sum(parameter.numel() for parameter in whole.parameters()) == before
