import pytest
import torch

from atelier.models.denoiser import take

PROMPTS = ["a sea", "calm"]
CHAT = 8  # <|im_start|> user ⏎ … <|im_end|> ⏎ <|im_start|> assistant ⏎


@pytest.fixture
def family():
    return "z_image"


@pytest.fixture
def noise(painter):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *painter.latent_shape(32), generator=generator)


@pytest.fixture
def calls(painter):
    """What the network was asked: pictures, times, captions."""
    asked = []
    painter.network.register_forward_pre_hook(lambda module, given: asked.append(given))
    return asked


def test_a_prompt_becomes_a_chat(painter):
    condition = painter.encode_texts(["a sea", "", "a sea in blue"])

    assert painter.count_tokens("a sea in blue") == CHAT + 4
    assert condition["mask"].sum(1).tolist() == [CHAT + 2, CHAT, CHAT + 4]
    assert not condition["tokens"][0, CHAT + 2 :].any()


def test_the_network_counts_time_from_the_clean_end_and_answers_with_the_other_sign(
    painter, noise, calls
):
    condition = painter.encode_texts(PROMPTS)

    found = painter.predict(noise, torch.tensor([0.25, 0.75]), condition)

    pictures, times, captions = calls[0]
    assert times.tolist() == [0.75, 0.25]
    assert [one.shape for one in pictures] == [(4, 1, 8, 8)] * 2
    assert [len(one) for one in captions] == [CHAT + 2, CHAT + 1]
    answer = painter.network(pictures, times, captions, return_dict=False)[0]
    torch.testing.assert_close(found, -torch.stack(answer).squeeze(2))


def test_guidance_of_one_is_a_single_pass(painter, noise, calls):
    condition, empty = painter.encode_texts(PROMPTS), painter.encode_texts([""])

    painter.sample(noise, condition, empty, steps=1, guidance=1.0)
    painter.sample(noise, condition, empty, steps=1, guidance=2.0)

    assert [len(pictures) for pictures, *_ in calls] == [2, 4]


def test_prompts_of_very_different_lengths_stand_beside_each_other(build):
    # The network fills captions up to multiples of 32 tokens: these need one and three.
    painter = build("z_image", text_tokens=96)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *painter.latent_shape(32), generator=generator)
    long = " ".join(["a sea in blue, calm edges, harsh edges"] * 6)
    condition = painter.encode_texts(["calm", long])
    time = torch.tensor([0.3, 0.8])

    together = painter.predict(latents, time, condition)

    assert condition["mask"].sum(1).tolist() == [CHAT + 1, CHAT + 6 * 10]
    for row in range(2):
        alone = painter.predict(
            latents[row : row + 1], time[row : row + 1], take(condition, torch.tensor([row]))
        )
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-3, rtol=1e-3)


def test_padding_never_reaches_the_network(painter, noise):
    condition = painter.encode_texts(PROMPTS)
    other = {
        **condition,
        "tokens": condition["tokens"] + 9 * (1 - condition["mask"])[..., None],
    }
    time = torch.tensor([0.3, 0.8])

    assert torch.equal(
        painter.predict(noise, time, other), painter.predict(noise, time, condition)
    )


def test_the_rest_of_a_long_prompt_is_counted_and_cut(painter):
    long = "a sea in blue, " * 10

    assert painter.count_tokens(long) > painter.token_budget
    assert painter.encode_texts([long])["mask"].all()
