import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from atelier.criteria import captions
from atelier.models import codec, prompt_chunks
from atelier.models.pipelines import token_ids
from atelier.models.small import text_encoders

SEA = "a sea in blue"  # four tokens
CALM = ", ".join(["calm edges"] * 40)  # three tokens each with the comma


@pytest.fixture(scope="module")
def tokenizer():
    return text_encoders.clip_pair([8, 8], 8, [f"{SEA}, calm edges"], both_summarise=False)[2]


def words(tokenizer, row):
    inner = [i for i in row.tolist() if i not in tokenizer.all_special_ids]
    return tokenizer.decode(inner)


@pytest.mark.parametrize("prompt", ["", SEA, "wörds, 12", f"{SEA}, {CALM}", "sea " * 200])
def test_one_chunk_is_what_the_tokenizer_gives(tokenizer, prompt):
    assert torch.equal(
        prompt_chunks.tokens(tokenizer, prompt, 1), token_ids(tokenizer, [prompt], 77)
    )


def test_a_phrase_is_never_torn(tokenizer):
    # 4 + 1 for the caption and its comma, then 23 phrases of 3 make 74; a 24th has no room.
    first, second = prompt_chunks.tokens(tokenizer, f"{SEA}, {CALM}", 2)

    assert words(tokenizer, first).count("calm") == words(tokenizer, first).count("edges") == 23
    assert words(tokenizer, second).startswith("calm edges")
    assert words(tokenizer, second).count("calm") == 17


def test_a_prompt_counts_what_its_cuts_leave_empty(tokenizer):
    assert prompt_chunks.count(tokenizer, SEA) == 4 + 2
    # one chunk is given up at 74 of 75; the second holds 17 phrases of 3, the last no comma
    assert prompt_chunks.count(tokenizer, f"{SEA}, {CALM}") == 75 + (17 * 3 - 1) + 2
    assert [prompt_chunks.budget(count) for count in (1, 2, 3)] == [77, 152, 227]


def test_every_chunk_has_a_begin_and_an_end_and_a_short_prompt_leaves_chunks_empty(tokenizer):
    found = prompt_chunks.tokens(tokenizer, SEA, 3)

    assert found.shape == (3, 77)
    assert (found[:, 0] == tokenizer.bos_token_id).all()
    assert found[0, 5] == tokenizer.eos_token_id
    assert torch.equal(found[1], token_ids(tokenizer, [""], 77)[0])


def test_a_phrase_longer_than_a_chunk_is_cut_where_the_chunk_ends(tokenizer):
    first, second = prompt_chunks.tokens(tokenizer, "sea " * 100, 2)

    assert words(tokenizer, first).split() == ["sea"] * 75
    assert words(tokenizer, second).split() == ["sea"] * 25


def test_more_chunks_carry_more_attributes(tokenizer):
    phrases = ["calm edges"] * 40

    def dropped(count):
        fitted = captions.fit(
            SEA,
            phrases,
            prompt_chunks.budget(count),
            lambda p: prompt_chunks.count(tokenizer, p),
            seed=0,
        )
        return len(fitted.dropped)

    assert (dropped(1), dropped(2)) == (17, 0)


@pytest.fixture
def long_reader(build):
    """A toy SDXL that reads two chunks."""
    return build("sdxl-epsilon", text_chunks=2)


def test_chunks_are_read_one_by_one_and_put_together(long_reader, build):
    prompts = [f"{SEA}, {CALM}", SEA]
    reader = build("sdxl-epsilon")
    long_reader.pipeline().register_to_config(force_zeros_for_empty_prompt=False)
    reader.pipeline().register_to_config(force_zeros_for_empty_prompt=False)

    found = long_reader.encode_texts(prompts)

    start = f"{SEA}, " + ", ".join(["calm edges"] * 23) + ","
    rest = ", ".join(["calm edges"] * 17)
    alone = reader.encode_texts([start, rest, SEA, ""])
    for row, (one, other) in enumerate([(0, 1), (2, 3)]):
        expected = torch.cat([alone["tokens"][one], alone["tokens"][other]])
        torch.testing.assert_close(found["tokens"][row], expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            found["pooled"][row], alone["pooled"][one], atol=1e-3, rtol=1e-3
        )


def test_the_empty_prompt_is_zeros_in_every_chunk(long_reader):
    empty = long_reader.encode_texts(["", SEA])

    assert empty["tokens"].shape == (2, 154, 24)
    assert not empty["tokens"][0].any()
    assert empty["tokens"][1, 77:].any()


def test_plain_diffusers_paints_the_same_from_chunked_embeddings(long_reader, tmp_path):
    long_reader.pipeline().save_pretrained(tmp_path)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = long_reader.encode_texts([f"{SEA}, {CALM}"])
    empty = long_reader.encode_texts([""])

    ours = long_reader.sample(noise, condition, empty, steps=3, guidance=3.0)

    theirs = StableDiffusionXLPipeline.from_pretrained(
        tmp_path, vae=codec.PatchPCA.from_pretrained(tmp_path / "vae")
    )
    found = theirs(
        prompt_embeds=condition["tokens"], pooled_prompt_embeds=condition["pooled"],
        negative_prompt_embeds=empty["tokens"], negative_pooled_prompt_embeds=empty["pooled"],
        latents=noise, height=32, width=32, num_inference_steps=3, guidance_scale=3.0,
        output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(found, ours, atol=1e-3, rtol=1e-3)
    short = long_reader.sample(
        noise, long_reader.encode_texts([SEA]), empty, steps=3, guidance=3.0
    )
    assert not torch.allclose(short, ours, atol=1e-2)
