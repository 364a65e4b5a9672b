"""What every family must hold, whatever its quirks; `painter` is each family in turn."""

import json
import math
from typing import get_args

import pytest
import torch

from atelier.config.model import ModelParams
from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, sampling
from atelier.models.costs import parameter_count
from atelier.models.denoiser import MASK, join, quiet, take
from atelier.models.loading import load
from atelier.models.pipelines import readers
from tests.atelier import plain
from tests.atelier.conftest import NETWORKS


def model(source, family, **changes):
    values = {
        "family": NETWORKS[family].kind if family in NETWORKS else family,
        "source": str(source),
        "revision": None,
        "dtype": "float32",
        "pixels": 32,
        "text_tokens": plain.TOKENS.get(family, plain.FEWEST),
        "text_chunks": 1,
        "quantise": None,
        "buckets": None,
        "true_sizes": False,
    }
    return ModelParams.model_validate({**values, **changes})


def noisy(painter, count=2, seed=0):
    shape = painter.latent_shape(32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator), torch.tensor([0.3, 0.8])[:count]


def prompted(painter):
    return painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])


def sampled_times(painter):
    """The times in [0, 1] at which the pipeline asked the network when it last sampled."""
    steps = painter.pipeline().scheduler.timesteps
    return steps / (1000 if painter.component == "transformer" else 999)


def deterministic(painter, latents, predict):
    """Sampling without new noise, worked from the process alone.

    A prediction implies the clean latents and the noise; the next noisy latents are made of
    the same two at the next time (Song et al. 2021, arXiv:2010.02502, Eq. 12 with sigma 0).
    """
    process, zero = painter.process, torch.zeros_like(latents)
    times = [time.float().expand(len(latents)) for time in sampled_times(painter)]
    for time, following in zip(times, [*times[1:], None], strict=True):
        clean = process.denoised(latents, predict(latents, time), time)
        if following is not None:
            strength = process.add_noise(zero, torch.ones_like(zero), time)
            noise = (latents - process.add_noise(clean, zero, time)) / strength
            latents = process.add_noise(clean, noise, following)
    return clean


def test_a_perfect_prediction_recovers_the_clean_latents(painter):
    pixels = torch.rand(3, 3, 32, 32) * 2 - 1
    clean = painter.encode_images(pixels)
    noise, time = torch.randn_like(clean), torch.tensor([0.05, 0.4, 0.9])
    process = painter.process

    latents = process.add_noise(clean, noise, time)
    recovered = process.denoised(latents, process.target(clean, noise, time), time)

    torch.testing.assert_close(recovered, clean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        painter.decode_latents(recovered), painter.decode_latents(clean), atol=1e-3, rtol=1e-3
    )


def test_prediction_is_float32_in_the_shape_of_the_latents(painter):
    latents, time = noisy(painter)

    predicted = painter.predict(latents, time, painter.encode_texts(["a sea", "a sea in blue"]))

    assert predicted.shape == latents.shape == (2, *painter.latent_shape(32))
    assert predicted.dtype == torch.float32


def test_a_bfloat16_network_still_answers_in_float32(painter):
    latents, time = noisy(painter)
    condition, empty = prompted(painter)
    exact = painter.predict(latents, time, condition)

    painter.pipeline().to(torch.bfloat16)

    predicted = painter.predict(latents, time, condition)
    sampled = painter.sample(latents, condition, empty, steps=2, guidance=3.0)
    assert predicted.dtype == sampled.dtype == torch.float32
    assert (predicted - exact).norm() < 0.05 * exact.norm()
    assert sampled.isfinite().all()


def test_an_image_is_predicted_the_same_in_any_batch(painter):
    latents, time = noisy(painter)
    condition = painter.encode_texts(["a sea", "harsh edges"])

    together = painter.predict(latents, time, condition)
    alone = painter.predict(latents[1:], time[1:], take(condition, torch.tensor([1])))

    torch.testing.assert_close(together[1:], alone, atol=1e-3, rtol=1e-3)


def test_one_pass_over_two_conditions_is_the_two_passes(painter):
    latents, time = noisy(painter, count=1)
    calm, harsh = (painter.encode_texts([p]) for p in ("calm edges", "harsh edges"))

    both = painter.predict(torch.cat([latents] * 2), torch.cat([time] * 2), join([calm, harsh]))

    torch.testing.assert_close(
        both[:1], painter.predict(latents, time, calm), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        both[1:], painter.predict(latents, time, harsh), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_a_prompt_is_encoded_the_same_beside_any_other(painter):
    together = painter.encode_texts(["", "a sea", "harsh edges, calm"])
    alone = painter.encode_texts(["a sea"])

    for name, tensor in take(together, torch.tensor([1])).items():
        torch.testing.assert_close(tensor, alone[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_sampler_asks_the_network_what_training_asks_it(painter, steps):
    # Sampling and predict must agree on packing, time, sign, sizes and the noise's scale.
    latents, _ = noisy(painter)
    condition, empty = prompted(painter)

    sampled = painter.sample(latents, condition, empty, steps=steps, guidance=1.0)

    expected = deterministic(painter, latents, lambda x, t: painter.predict(x, t, condition))
    torch.testing.assert_close(sampled, expected, atol=1e-3, rtol=1e-3)


def test_a_network_without_guidance_as_an_input_refuses_a_number_for_it(painter):
    noise, condition = (
        torch.randn(1, *painter.latent_shape(32)),
        painter.encode_texts(["a sea"]),
    )

    with pytest.raises(ParamsError, match=r"distilled_guidance should be null, is 3\.5"):
        painter.sample(
            noise, condition, condition, steps=1, guidance=1.0, distilled_guidance=3.5
        )


def test_guidance_moves_away_from_the_empty_prompt(painter):
    latents, _ = noisy(painter)
    condition, empty = prompted(painter)

    sampled = painter.sample(latents, condition, empty, steps=1, guidance=3.0)

    def guided(noisy, time):
        good = painter.predict(noisy, time, condition)
        none = painter.predict(noisy, time, painter.encode_texts(["", ""]))
        return rescaled(painter, none + 3 * (good - none), good)

    expected = deterministic(painter, latents, guided)
    torch.testing.assert_close(sampled, expected, atol=1e-3, rtol=1e-3)


def rescaled(painter, guided, own):
    """Qwen-Image brings guided patches back to the length of the prompt's own prediction."""
    pipeline = painter.pipeline()
    if type(pipeline).__name__ != "QwenImagePipeline":
        return guided
    guided, own = (pipeline._pack_latents(one, *one.shape) for one in (guided, own))
    found = guided * (own.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
    return plain.answer(pipeline, found)


def test_a_picture_depends_on_its_seed_not_on_its_neighbours(painter):
    def paint(prompts, seeds, batch):
        return list(
            sampling.paint(
                painter, prompts, seeds, sampling.Sampling(2, 1.0),
                pixels=32, batch_images=batch, report=lambda done, values: None,
            )
        )  # fmt: skip

    together = paint(["a sea", "calm", "a sea"], [5, 6, 7], batch=3)
    alone = paint(["a sea"], [7], batch=1)

    assert abs(together[2].astype(int) - alone[0].astype(int)).max() <= 1
    assert abs(together[0].astype(int) - together[2].astype(int)).max() > 1


def test_latents_are_the_codecs_times_its_scale(painter):
    vae = painter.pipeline().vae
    if "scaling_factor" not in vae.config:
        pytest.skip("its codec has no scale; what it has instead is tested with the family")
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    plain = painter.encode_images(pixels)
    decoded = painter.decode_latents(plain)

    vae.register_to_config(scaling_factor=0.5)

    torch.testing.assert_close(painter.encode_images(pixels), plain * 0.5)
    torch.testing.assert_close(painter.decode_latents(plain * 0.5), decoded)


def test_pixels_are_what_the_pipeline_itself_decodes(painter):
    latents, _ = noisy(painter)
    condition, empty = prompted(painter)
    pipeline = painter.pipeline()

    ours = painter.decode_latents(
        painter.sample(latents, condition, empty, steps=2, guidance=1.0)
    )

    theirs = pipeline(
        **plain.call(pipeline, ["a sea", "calm"], latents),
        num_inference_steps=2,
        output_type="pt",
    ).images
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, atol=1e-3, rtol=1e-3)


def test_training_needs_neither_codec_nor_encoders(painter):
    latents, time = noisy(painter)
    condition, empty = prompted(painter)
    before = painter.predict(latents, time, condition)
    painted = painter.sample(latents, condition, empty, steps=2, guidance=2.0)

    painter.release_encoders()

    assert torch.equal(painter.predict(latents, time, condition), before)
    again = painter.sample(latents, condition, empty, steps=2, guidance=2.0)
    torch.testing.assert_close(again, painted, atol=1e-3, rtol=1e-3)


def test_a_saved_base_paints_the_same(painter, family, tmp_path):
    latents, time = noisy(painter)
    condition = painter.encode_texts(["a sea", "calm edges"])
    before = painter.predict(latents, time, condition)

    painter.pipeline().save_pretrained(tmp_path)
    loaded = load(model(tmp_path, family))

    assert loaded.identity == painter.identity
    torch.testing.assert_close(
        loaded.encode_texts(["a sea", "calm edges"]), condition, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        loaded.predict(latents, time, condition), before, atol=1e-3, rtol=1e-3
    )


def test_the_network_is_loaded_when_it_is_first_asked_for(painter, family, tmp_path):
    painter.pipeline().save_pretrained(tmp_path)

    loaded = load(model(tmp_path, family))

    assert loaded.parts().components[loaded.component] is None
    assert loaded.latent_shape(32) == painter.latent_shape(32)
    assert loaded.parts().components[loaded.component] is None
    assert loaded.pipeline().components[loaded.component] is loaded.network
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert loaded.network_config is loaded.network.config


def test_a_base_without_its_networks_weights_is_refused_at_once(painter, family, tmp_path):
    painter.pipeline().save_pretrained(tmp_path)
    for file in (tmp_path / painter.component).glob("*.safetensors"):
        file.unlink()

    with pytest.raises(ArtifactError, match="holds no weights"):
        load(model(tmp_path, family))


def test_a_converted_network_is_the_one_that_diffusers_converts(painter, family, tmp_path):
    painter.pipeline().save_pretrained(tmp_path)
    kind = type(painter.network)
    with quiet():
        theirs = kind.from_pretrained(tmp_path / painter.component, dtype=torch.bfloat16)

    ours = load(model(tmp_path, family, dtype="bfloat16")).network

    for named in ("named_parameters", "named_buffers"):
        found, expected = (dict(getattr(one, named)()) for one in (ours, theirs))
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name


def test_what_is_encoded_is_as_large_as_it_is_estimated(painter, family, tmp_path):
    painter.pipeline().save_pretrained(tmp_path)
    pipeline = painter.pipeline()
    condition = painter.encode_texts(["a sea"])
    numbers = sum(one.numel() for name, one in condition.items() if name != MASK)
    header = 500  # bytes of an entry's names and digests

    found = parameter_count.beside(model(tmp_path, family))

    masks = condition.get(MASK, torch.empty(0)).numel()  # 0 and 1: kept in half precision
    assert found.prompt_bytes - header == 4 * numbers + 2 * masks
    assert found.latent_bytes - header == 4 * math.prod(painter.latent_shape(32))
    encoders = [encoder for _, encoder in readers(pipeline)]
    assert found.encoders == sum(p.numel() for one in encoders for p in one.parameters())
    assert found.codec == sum(p.numel() for p in pipeline.vae.parameters())


def test_a_lora_paints_the_same_in_a_pipeline_without_our_code(painter, lora, tmp_path):
    painter.pipeline().save_pretrained(tmp_path / "base")
    adapters.add(painter.network, "theta", lora, seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapters.save(painter, "theta", tmp_path / "lora")
    latents, _ = noisy(painter)
    condition, empty = prompted(painter)
    with adapters.use(painter.network, None):
        untaught = painter.sample(latents, condition, empty, steps=3, guidance=1.0)
    with adapters.use(painter.network, "theta"):
        ours = painter.sample(latents, condition, empty, steps=3, guidance=1.0)

    theirs = plain.loaded(type(painter.pipeline()), tmp_path / "base")
    theirs.load_lora_weights(tmp_path / "lora")

    found = plain.paint(theirs, ["a sea", "calm"], latents, steps=3)
    torch.testing.assert_close(found, ours, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours, untaught, atol=1e-2)


def test_the_blocks_that_torch_compile_is_to_compile_are_there(painter):
    kinds = {type(module).__name__ for module in painter.network.modules()}

    assert painter.network._repeated_blocks
    assert set(painter.network._repeated_blocks) & kinds


FAMILIES = get_args(ModelParams.model_fields["family"].annotation)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_that_params_allow_is_loaded_from_a_folder(family, tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.source .*nowhere.* is no folder"):
        load(model(tmp_path / "nowhere", family))


def test_a_folder_that_is_no_pipeline_is_named(family, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))

    with pytest.raises(
        ArtifactError,
        match=r"cannot be loaded as an? [A-Z][\w. -]+ pipeline",
    ):
        load(model(tmp_path, family))


def test_a_base_without_one_of_its_encoders_is_refused(painter, family, tmp_path):
    last = [name for name in painter.pipeline().components if name.startswith("text_enc")][-1]
    painter.pipeline().register_modules(**{last: None})
    painter.pipeline().save_pretrained(tmp_path)

    with pytest.raises(ArtifactError, match=r"lacks a text encoder|expected .*text_encoder"):
        load(model(tmp_path, family))


def test_a_base_of_another_family_is_refused(painter, family, tmp_path):
    painter.pipeline().save_pretrained(tmp_path)
    other = "sdxl" if family == "flux" else "flux"

    with pytest.raises(ArtifactError, match=r"cannot be loaded as an? \w+ pipeline"):
        load(model(tmp_path, other))
