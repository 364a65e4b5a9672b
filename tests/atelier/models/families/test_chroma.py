import pytest
import torch
from torch.nn.functional import pad

from atelier.models import adapters
from tests.atelier import plain

PROMPTS = ["a sea", "calm"]
READ = 2 + 1 + 1  # words, the end, and one token of padding


@pytest.fixture
def family():
    return "chroma"


@pytest.fixture
def noise(painter):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *painter.latent_shape(32), generator=generator)


def predict(painter, noise, condition):
    return painter.predict(noise, torch.tensor([0.3, 0.8]), condition)


def test_of_the_padding_the_network_reads_one_token(painter, noise):
    condition = painter.encode_texts(PROMPTS)
    before = predict(painter, noise, condition)

    def changed(token):
        tokens = condition["tokens"].clone()
        tokens[0, token] += 1
        return predict(painter, noise, {**condition, "tokens": tokens})

    assert condition["mask"].sum(1).tolist() == [READ, READ - 1]
    torch.testing.assert_close(changed(READ), before)
    assert not torch.allclose(changed(READ - 1), before, atol=1e-3)


def test_more_padding_changes_nothing(painter, noise):
    condition = painter.encode_texts(PROMPTS)
    longer = {
        "tokens": pad(condition["tokens"], (0, 0, 0, 5), value=9.0),
        "mask": pad(condition["mask"], (0, 5)),
    }

    torch.testing.assert_close(
        predict(painter, noise, longer), predict(painter, noise, condition),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_no_row_of_attention_is_masked_whole(painter, noise, monkeypatch):
    # Of such a row some kernels make NaN.
    masks = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def seen(*given, **named):
        masks.append(named["attn_mask"])
        return attend(*given, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    condition, empty = painter.encode_texts(PROMPTS), painter.encode_texts([""])
    masks.clear()  # T5's

    predict(painter, noise, condition)
    painter.sample(noise, condition, empty, steps=1, guidance=2.0)

    assert len(masks) == 2 * 3  # a double and a single block, three passes
    assert all(mask.dtype == torch.bool and mask.any(-1).all() for mask in masks)
    assert not all(mask.all() for mask in masks)


def test_t5_itself_reads_no_padding(painter, build):
    longer = build("chroma", text_tokens=20)

    torch.testing.assert_close(
        longer.encode_texts(PROMPTS)["tokens"][0, :3],
        painter.encode_texts(PROMPTS)["tokens"][0, :3],
    )


@pytest.mark.parametrize("prompts", [PROMPTS, ["a sea", "a sea, calm edges, harsh edges"]])
def test_checkpointed_blocks_are_masked_too(painter, noise, lora, prompts):
    # diffusers hands a checkpointed single block no mask.
    adapters.add(painter.network, "theta", lora, seed=0)
    condition = painter.encode_texts(prompts)

    def learned():
        with adapters.learning(painter.network, "theta"):
            found = predict(painter, noise, condition)
            again = predict(painter, noise, painter.encode_texts(["", "calm"]))
            (found - again).square().mean().backward()
        weights = adapters.weights(painter.network, "theta")
        gradients = {name: parameter.grad for name, parameter in weights.items()}
        for parameter in weights.values():
            parameter.grad = None
        return found.detach(), gradients

    expected, whole = learned()
    painter.network.enable_gradient_checkpointing()
    found, gradients = learned()

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients, whole, atol=1e-4, rtol=1e-4)


def test_diffusers_makes_of_a_prompt_a_mask_that_attention_adds_up(painter, noise):
    # When this fails, diffusers has mended it, and a prompt may be given to it as it is.
    pipeline = painter.pipeline()
    condition, empty = painter.encode_texts(PROMPTS), painter.encode_texts([""])
    ours = painter.sample(noise, condition, empty, steps=2, guidance=1.0)
    asked = plain.call(pipeline, PROMPTS, noise)
    mask = asked.pop("prompt_attention_mask")

    def paint(mask):
        return plain.answer(
            pipeline,
            pipeline(
                **asked, prompt_attention_mask=mask, num_inference_steps=2, output_type="latent"
            ).images,
        )

    torch.testing.assert_close(paint(mask), ours, atol=1e-3, rtol=1e-3)
    added_up = paint(mask.float())
    assert not torch.allclose(added_up, ours, atol=1e-2)
    from_the_prompt = pipeline(
        prompt=PROMPTS, height=32, width=32, guidance_scale=1.0, max_sequence_length=12,
        latents=asked["latents"], num_inference_steps=2, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(plain.answer(pipeline, from_the_prompt), added_up)


def test_the_empty_prompt_is_its_end_and_one_token_of_padding(painter):
    empty = painter.encode_texts([""])

    assert empty["mask"].sum() == 2
    assert painter.count_tokens("") == 1
