import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from atelier.config.profile import read_profile
from atelier.models import adapters
from atelier.models.costs import parameter_count
from atelier.models.loading import load
from atelier.objectives.objective import Passes
from tasks import cpo, sft
from tasks.run import paths, split_parts
from tasks.training import needs

FAMILIES = pytest.mark.parametrize("family", ["flux", "sd3", "sdxl"])


def of(stage, profile):
    return needs.Needs(stage, profile, split_parts.read("train", stage))


def of_few(stage, profile):
    """The needs on a few pictures, which say as much of the device."""
    return needs.Needs(stage, profile, needs.imagined(profile)[:8])


def by_name(found):
    return {one.name: one for one in found}


def numbers(pattern):
    """How many numbers each entry of a cache has, and how many entries there are."""
    entries: dict[str, int] = {}
    for folder in paths.CACHE.glob(pattern):
        for file in folder.glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                key, _, part = name.partition(" ")
                if part != "frame":
                    entries[key] = entries.get(key, 0) + tensor.numel()
    return entries


def with_model(profile, **changes):
    changed = profile.model.model_copy(update=changes)
    return profile.model_copy(update={"model": changed})


@FAMILIES
def test_encoders_and_codec_are_counted_without_being_loaded(studio):
    parts = load(studio.model).pipeline().components
    encoders = [part for name, part in parts.items() if name.startswith("text_encoder")]

    counted = parameter_count.beside(studio.model)

    assert counted.encoders == sum(p.numel() for one in encoders for p in one.parameters())
    assert counted.codec == sum(p.numel() for p in parts["vae"].parameters())


@FAMILIES
@pytest.mark.parametrize("chunks", [1, 2])
def test_prompts_and_pictures_take_on_disk_what_is_computed(studio, notebook, chunks):
    profile = with_model(studio, text_chunks=chunks)
    header = parameter_count._HEADER
    sft.run(profile, notebook)
    needed = of("sft", profile)

    texts, latents = numbers("texts-*"), numbers("latents-*")

    assert len(texts) == needed.prompts()
    assert set(texts.values()) == {(needed.beside.prompt_bytes - header) / 4}
    assert set(latents.values()) == {(needed.beside.latent_bytes - header) / 4}
    cpo.run(profile, notebook)
    assert len(numbers("texts-*")) == len(texts.keys() | numbers("texts-*").keys())
    assert of("cpo", profile).prompts() <= len(numbers("texts-*"))


def test_half_precision_halves_the_conditions_and_none_are_stored_on_demand(studio):
    whole = by_name(of("sft", studio).disk())["disk: text conditions"].bytes
    half = by_name(of("sft", with_model(studio, dtype="bfloat16")).disk())
    none = by_name(of("sft", with_model(studio, store_texts=False)).disk())

    header = parameter_count._HEADER * of("sft", studio).prompts()
    assert half["disk: text conditions"].bytes - header == (whole - header) / 2
    assert none["disk: text conditions"].bytes == 0


def test_encoders_stay_beside_a_training_that_encodes_on_demand(studio):
    stored, on_demand = (
        by_name(of("cpo", with_model(studio, store_texts=stored)).device())
        for stored in (True, False)
    )
    needed = of("cpo", studio)

    held = needed.base + needed.teacher + needed.learning
    images = studio.cpo.training.batch_images
    assert stored["device: training"].bytes == held + images * needed.costs.held
    more = on_demand["device: training"].bytes - stored["device: training"].bytes
    assert more == needed.encoders > 0


def test_theta1_is_counted_in_the_precision_that_it_is_loaded_in(studio, notebook):
    half = with_model(studio, dtype="bfloat16")
    sft.run(half, notebook)
    painter = load(half.model)
    adapters.attach(painter, "theta1", paths.SFT)

    held = sum(
        one.numel() * one.element_size()
        for one in adapters.weights(painter.network, "theta1").values()
    )

    assert of("cpo", half).teacher == held


@pytest.mark.parametrize(("limit", "pictures"), [(1, 1), (3.5, 3), (0.1, 1), (None, 16)])
def test_the_codec_takes_as_much_as_the_pictures_that_it_takes_at_once(studio, limit, pictures):
    area = None if limit is None else int(limit * studio.model.pixels**2)
    codec = studio.model.codec.model_copy(update={"pixels_at_once": area})
    needed = of("sft", with_model(studio, codec=codec))

    held = by_name(needed.device())["device: encoding"].bytes

    passes = held - needed.encoders - needed.codec
    assert passes == pytest.approx(needed.beside.encoding_bytes * pictures)


def test_a_pair_of_passes_takes_the_memory_of_two(studio, monkeypatch):
    one, two = (Passes(policy=n, frozen=0) for n in (1, 2))
    needed = of("cpo", studio)
    found = []
    for passes in (one, two):
        monkeypatch.setattr(needed, "_passes", lambda passes=passes: [passes])
        found.append(by_name(needed.device())["device: training"].bytes)

    images = studio.cpo.training.batch_images
    assert found[1] - found[0] == images * needed.costs.held > 0


def test_flops_are_those_of_all_objectives(studio):
    needed = of("cpo", studio)
    each = [one.passes(1) for one in studio.cpo.objectives.values()]
    policy, frozen = (sum(getattr(one, kind) for one in each) for kind in ("policy", "frozen"))

    costs = needed.costs
    found = needed.trainings()
    assert [one.kind for one in found] == [
        one.objective for one in studio.cpo.objectives.values()
    ]
    assert sum(one.flops for one in found) == policy * costs.policy + frozen * costs.frozen
    (only,) = of("sft", studio).trainings()
    assert only.flops == costs.policy


def test_before_there_are_pictures_the_papers_number_is_imagined(studio):
    shutil.copy(paths.JUDGED_BY, paths.CRITERIA / studio.annotate.criteria)
    imagined = needs.imagined(studio)

    needed = needs.Needs("sft", studio, imagined[:10])

    assert len(imagined) == round(10_277 * studio.split.train)
    assert 1 + 10 < needed.prompts() <= 1 + 10 * studio.sft.prompt_variants


def test_every_figure_says_how_it_is_known(studio):
    needed = of("cpo", studio)
    every = [*needed.weights(), *needed.device(), needed.host(), *needed.disk()]

    assert all(one.how.startswith("computed: ") for one in every)
    assert {one.name.partition(":")[0] for one in every} >= {"device", "host", "disk"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "flux", "sd3", "chroma", "z-image", "flux2-klein"])
def test_small_profiles_fit_the_device_that_they_name(name):
    file = Path("params") / f"{name}-small.yaml"

    needed = of_few("cpo", read_profile(file))

    assert "for one GPU of 24 GB." in file.read_text()
    most = max(needed.device(), key=lambda one: one.bytes)
    assert most.bytes < 0.9 * 24e9, most
