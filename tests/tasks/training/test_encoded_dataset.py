import gc
import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file

from atelier import images
from atelier.config.model import Buckets
from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError, RoomError
from atelier.models import loading
from atelier.models.families.flux import Flux
from atelier.models.files import weight_files
from atelier.models.pipelines import PipelineDenoiser
from tasks import cpo, sft
from tasks.run import paths
from tasks.training import encoded_dataset

ENCODING = {"vae", "text_encoder", "text_encoder_2", "text_encoder_3"}
SIZES = [(32, 32), (64, 40), (30, 70)]  # width and height, by turns


@pytest.fixture
def gallery(studio, paint):
    """The studio's profile over pictures of several shapes, with buckets and true sizes."""
    rows = annotations.read(paths.SPLIT / "train.jsonl", Record)
    found = []
    for number, record in enumerate(rows):
        path = paint(paths.DATA / record.file, number + 50, SIZES[number % 3])
        found.append(record.model_copy(update={"image": images.sha256(path)}))
    (paths.SPLIT / "train.jsonl").write_text(annotations.lines(found))
    buckets = Buckets(step_pixels=8, longest_ratio=2.0)
    changed = {"buckets": buckets, "true_sizes": True}
    return studio.model_copy(update={"model": studio.model.model_copy(update=changed)})


def encoded(profile):
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    prompts = {"caption": [[record.caption] for record in records]}
    return encoded_dataset.encode(loading.load(profile.model), records, prompts, profile)


def test_pictures_go_to_the_nearest_size_and_say_what_was_cut_off(gallery):
    found = encoded(gallery)

    shapes = [tuple(found.latents[torch.tensor([row])].shape[2:]) for row in range(3)]
    # 32 x 32 stays; 40 x 64 is nearest to 24 x 40 of the area's sizes; 70 x 30 to 48 x 24.
    assert shapes == [(8, 8), (6, 10), (12, 6)]
    assert [len(bucket) for bucket in found.buckets] == [4, 4, 4]
    # 40 x 64 covers 24 x 40 as 25 x 40; 70 x 30 covers 48 x 24 as 56 x 24, from row 4.
    assert found.frames[:3].tolist() == [[32, 32, 0, 0], [40, 64, 0, 0], [70, 30, 4, 0]]


def test_without_buckets_every_picture_is_the_middle_square(gallery):
    square = gallery.model_copy(
        update={"model": gallery.model.model_copy(update={"buckets": None})}
    )

    found = encoded(square)

    assert found.buckets is None
    assert found.latents[torch.arange(12)].shape == (12, 4, 8, 8)
    # 40 x 64 covers 32 x 32 as 32 x 51, from column 10; 70 x 30 as 75 x 32, from row 21.
    assert found.frames[:3].tolist() == [[32, 32, 0, 0], [40, 64, 0, 10], [70, 30, 21, 0]]


@pytest.mark.parametrize("family", ["flux", "sd3", "sdxl"])
def test_both_stages_train_on_buckets(gallery, notebook):
    sft.run(gallery, notebook)
    cpo.run(gallery, notebook)

    metrics = json.loads((paths.CPO / "cpo-s" / "metrics.json").read_text())
    assert metrics["loss"] > 0


def test_a_finished_cache_wants_no_pictures(gallery):
    first = encoded(gallery)
    for file in paths.DATA.glob("*.png"):
        file.unlink()

    again = encoded(gallery)

    rows = torch.tensor([1, 4])
    assert torch.equal(again.latents[rows], first.latents[rows])


@pytest.mark.parametrize("family", ["sdxl"])
def test_every_prompt_of_a_batch_has_as_many_chunks(gallery):
    long = {"text_chunks": 3}

    found = encoded(gallery.model_copy(update={"model": gallery.model.model_copy(update=long)}))

    rows = torch.tensor([found.empty, *found.rows["caption"][:2, 0].tolist()])
    assert found.prompts["tokens"][rows].shape == (3, 3 * 77, 24)


def test_buckets_that_the_family_cannot_paint_are_refused(gallery):
    buckets = Buckets(step_pixels=12, longest_ratio=2.0)
    model = gallery.model.model_copy(update={"buckets": buckets})

    with pytest.raises(ParamsError, match=r"step_pixels should be a multiple .* is 12"):
        encoded(gallery.model_copy(update={"model": model}))


def test_a_picture_that_went_missing_is_named_before_anything_is_encoded(gallery):
    (paths.DATA / "3.png").unlink()

    with pytest.raises(ArtifactError, match=r"data/3\.png was readable when"):
        encoded(gallery)


@pytest.mark.parametrize(
    ("method", "what", "cure"),
    [
        ("encode_images", "Encoding the pictures", "model.codec.pixels_at_once: 1024 (now "),
        ("encode_texts", "Encoding the prompts", "model.text_tokens"),
    ],
)
def test_too_little_memory_to_encode_says_what_helps_there(
    studio, notebook, monkeypatch, method, what, cure
):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Flux, method, full)

    with pytest.raises(RoomError) as told:
        sft.run(studio, notebook)

    assert str(told.value).startswith(f"{what} needs more memory")
    assert cure in str(told.value)
    assert "gradient_checkpointing" not in str(told.value)


@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_encoders_have_left_memory_when_the_network_comes(studio, notebook, monkeypatch):
    left, alive = [], []
    take, release = PipelineDenoiser._take, PipelineDenoiser.release_encoders

    def released(painter, **how):
        parts = painter.parts().components
        assert parts[painter.component] is None
        left.extend(weakref.ref(parts[name]) for name in parts if name in ENCODING)
        release(painter, **how)

    def taken(painter, network):
        gc.collect()
        alive.append([type(one()).__name__ for one in left if one() is not None])
        take(painter, network)

    monkeypatch.setattr(PipelineDenoiser, "release_encoders", released)
    monkeypatch.setattr(PipelineDenoiser, "_take", taken)
    sft.run(studio, notebook)  # encodes
    shutil.rmtree(paths.SFT)
    sft.run(studio, notebook)  # finds all in the cache
    cpo.run(studio, notebook)

    assert alive == [[], [], []]
    assert len(left) == 3 * 3  # codec and two encoders each time


def on_demand(profile):
    changed = profile.model.model_copy(update={"store_texts": False})
    return profile.model_copy(update={"model": changed})


def learned():
    folders = [paths.SFT, *sorted(paths.CPO.iterdir())]
    return {folder.name: load_file(folder / weight_files.FILE) for folder in folders}


@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_texts_encoded_in_each_step_teach_the_same_and_are_not_stored(studio, notebook):
    sft.run(studio, notebook)
    cpo.run(studio, notebook)
    stored = learned()
    assert list(paths.CACHE.glob("texts-*"))
    shutil.rmtree(paths.CACHE)

    sft.run(on_demand(studio), notebook)
    cpo.run(on_demand(studio), notebook)

    assert not list(paths.CACHE.glob("texts-*"))
    for name, weights in learned().items():
        for key, tensor in weights.items():
            torch.testing.assert_close(tensor, stored[name][key], rtol=0, atol=1e-5)


def test_a_run_that_encodes_in_each_step_resumes_exactly(studio, notebook, monkeypatch):
    profile = on_demand(studio)
    sft.run(profile, notebook)
    whole = (paths.SFT / weight_files.FILE).read_bytes()
    shutil.rmtree(paths.SFT)
    predict, passes = Flux.predict, []

    def killed(*words):
        passes.append(1)
        if len(passes) == 4:  # after the checkpoint of step 2
            raise KeyboardInterrupt
        return predict(*words)

    monkeypatch.setattr(Flux, "predict", killed)
    with pytest.raises(KeyboardInterrupt):
        sft.run(profile, notebook)
    monkeypatch.setattr(Flux, "predict", predict)
    sft.run(profile, notebook)

    assert (paths.SFT / weight_files.FILE).read_bytes() == whole


def test_a_condition_of_a_bfloat16_encoder_takes_two_bytes_a_number(studio, notebook):
    half = studio.model.model_copy(update={"dtype": "bfloat16"})
    sft.run(studio.model_copy(update={"model": half}), notebook)

    (folder,) = paths.CACHE.glob("texts-*")
    for file in folder.glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}


def test_large_encoders_on_a_cpu_take_one_prompt_at_a_time(studio, monkeypatch):
    painter = loading.load(studio.model)
    assert encoded_dataset._texts_at_once(painter) == 8192 // 16

    monkeypatch.setattr(encoded_dataset, "_LARGE_ENCODERS", 1000)

    assert encoded_dataset._texts_at_once(painter) == 1
