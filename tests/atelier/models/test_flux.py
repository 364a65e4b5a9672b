import json

import pytest
import torch
from diffusers import FluxPipeline

from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, codec, flux, join, load, sampling, take
from atelier.params import ModelParams


def model(source, **changes):
    values = {
        "family": "flux",
        "source": str(source),
        "revision": None,
        "dtype": "float32",
        "pixels": 32,
        "text_tokens": 12,
    }
    return ModelParams.model_validate({**values, **changes})


def noisy(painter, count=2, seed=0):
    shape = painter.latent_shape(32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator), torch.tensor([0.3, 0.8])[:count]


def test_prediction_is_float32_in_the_shape_of_the_latents(painter):
    latents, time = noisy(painter)

    predicted = painter.predict(latents, time, painter.encode_texts(["a sea", "a sea in blue"]))

    assert predicted.shape == latents.shape == (2, 4, 8, 8)
    assert predicted.dtype == torch.float32


def test_an_image_is_predicted_the_same_in_any_batch(painter):
    latents, time = noisy(painter)
    condition = painter.encode_texts(["a sea", "harsh edges"])

    together = painter.predict(latents, time, condition)
    alone = painter.predict(latents[1:], time[1:], take(condition, torch.tensor([1])))

    torch.testing.assert_close(together[1:], alone)


def test_one_pass_over_two_conditions_is_the_two_passes(painter):
    latents, time = noisy(painter, count=1)
    calm, harsh = (painter.encode_texts([p]) for p in ("calm edges", "harsh edges"))

    both = painter.predict(torch.cat([latents] * 2), torch.cat([time] * 2), join([calm, harsh]))

    torch.testing.assert_close(both[:1], painter.predict(latents, time, calm))
    torch.testing.assert_close(both[1:], painter.predict(latents, time, harsh))
    assert not torch.allclose(both[0], both[1], atol=1e-4)


def test_the_sampler_asks_the_network_what_training_asks_it(painter):
    # One Euler step from t = 1 to t = 0 is x - v: sampling and predict must agree on packing,
    # time and sign.
    latents, _ = noisy(painter)
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])

    sampled = painter.sample(latents, condition, empty, steps=1, guidance=1.0)

    velocity = painter.predict(latents, torch.ones(2), condition)
    torch.testing.assert_close(sampled, latents - velocity, atol=1e-5, rtol=1e-4)


def test_guidance_moves_away_from_the_empty_prompt(painter):
    latents, _ = noisy(painter)
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])

    sampled = painter.sample(latents, condition, empty, steps=1, guidance=3.0)

    good = painter.predict(latents, torch.ones(2), condition)
    none = painter.predict(
        latents, torch.ones(2), take(empty, torch.zeros(2, dtype=torch.long))
    )
    expected = latents - (none + 3 * (good - none))
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=1e-4)


def test_a_picture_depends_on_its_seed_not_on_its_neighbours(painter):
    def paint(prompts, seeds, batch):
        return list(
            sampling.paint(
                painter, prompts, seeds, steps=2, guidance=1.0, pixels=32, batch_images=batch,
                report=lambda done, values: None,
            )
        )  # fmt: skip

    together = paint(["a sea", "calm", "a sea"], [5, 6, 7], batch=3)
    alone = paint(["a sea"], [7], batch=1)

    assert abs(together[2].astype(int) - alone[0].astype(int)).max() <= 1
    assert abs(together[0].astype(int) - together[2].astype(int)).max() > 1


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


def test_a_saved_base_paints_the_same(painter, tmp_path):
    latents, time = noisy(painter)
    condition = painter.encode_texts(["a sea", "calm edges"])
    before = painter.predict(latents, time, condition)

    painter.pipeline().save_pretrained(tmp_path)
    loaded = load(model(tmp_path))

    assert loaded.identity == painter.identity
    torch.testing.assert_close(loaded.encode_texts(["a sea", "calm edges"]), condition)
    torch.testing.assert_close(loaded.predict(latents, time, condition), before)


def test_a_lora_paints_the_same_in_a_pipeline_without_our_code(painter, lora, tmp_path):
    painter.pipeline().save_pretrained(tmp_path / "base")
    adapters.add(painter.network, "theta", lora, seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.1)
    adapters.save(painter, "theta", tmp_path / "lora")
    latents, _ = noisy(painter)
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])
    with adapters.use(painter.network, "theta"):
        ours = painter.sample(latents, condition, empty, steps=3, guidance=1.0)

    theirs = FluxPipeline.from_pretrained(
        tmp_path / "base", vae=codec.PatchPCA.from_pretrained(tmp_path / "base" / "vae")
    )
    theirs.load_lora_weights(tmp_path / "lora")
    packed = theirs(
        prompt=["a sea", "calm"],
        latents=FluxPipeline._pack_latents(latents, *latents.shape),
        height=32, width=32, num_inference_steps=3, max_sequence_length=12,
        output_type="latent",
    ).images  # fmt: skip

    unpacked = FluxPipeline._unpack_latents(packed, 8, 8, vae_scale_factor=1)
    torch.testing.assert_close(unpacked, ours, atol=1e-5, rtol=1e-4)


def test_a_folder_that_is_absent_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.source .*nowhere.* is no folder"):
        flux.load(model(tmp_path / "nowhere"))


def test_a_folder_that_is_no_pipeline_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))

    with pytest.raises(ArtifactError, match="cannot be loaded as a FLUX pipeline"):
        flux.load(model(tmp_path))


def test_a_family_without_a_loader_says_what_is_missing(tmp_path):
    with pytest.raises(ParamsError, match=r"'sdxl' has no loader yet.*sdxl\.py"):
        load(model(tmp_path, family="sdxl"))
