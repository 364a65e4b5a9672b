import pytest
import torch


@pytest.fixture
def family():
    return "flux"


def test_one_step_of_sampling_goes_against_the_velocity(painter):
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])

    sampled = painter.sample(noise, condition, empty, steps=1, guidance=1.0)

    # One Euler step from t = 1 to t = 0 is x - v.
    velocity = painter.predict(noise, torch.ones(2), condition)
    torch.testing.assert_close(sampled, noise - velocity, atol=1e-5, rtol=1e-4)


def test_encode_and_decode_use_the_codecs_shift_and_scale(painter):
    vae = painter.pipeline().vae
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    plain = painter.encode_images(pixels)
    decoded = painter.decode_latents(plain)

    vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)

    torch.testing.assert_close(painter.encode_images(pixels), (plain - 0.25) * 0.5)
    torch.testing.assert_close(painter.decode_latents((plain - 0.25) * 0.5), decoded)


def test_every_word_of_a_long_prompt_is_counted(painter):
    # ▁a ▁sea , ▁ h z </s>: words of the corpus are one token, others are spelt
    assert painter.count_tokens("a sea, hz") == 7


def test_words_of_the_corpus_are_one_token_as_they_are_written():
    from atelier.models import small_texts

    caption = 'a painting, "Saint Francis", by Peter-Paul Rubens (1577)'
    _, tokenizer = small_texts.t5(16, [caption])

    pieces = tokenizer.tokenize(caption)

    assert {"▁painting", "Saint", "▁Francis", "▁Peter", "Paul", "▁Rubens", "1577"} <= set(
        pieces
    )
    assert len(pieces) == 18  # ten words, six marks, and two spaces before a mark
