"""Pictures painted in shards, in any order and after any stop, are those of one process."""

import random
import shutil

import pytest
import torch
import yaml

from atelier.config.profile import read_profile
from atelier.errors import ArtifactError
from atelier.models import loading
from tasks import generate
from tasks.evaluation import batches, generation, jobs
from tasks.run import paths

PAINTERS, PROMPTS = 5, 4


@pytest.fixture(autouse=True)
def _no_painter_of_another_test():
    batches._painter.cache_clear()
    yield
    batches._painter.cache_clear()


@pytest.fixture
def stage(gallery, notebook):
    """A function that runs the stage and returns what it made, forgetting what it keeps."""

    profile = read_profile(paths.profile("toy"))  # its objectives in the file's order

    def run():
        shutil.rmtree(paths.GENERATE, ignore_errors=True)  # as dvc does
        generate.run(profile, notebook)
        files = sorted(paths.GENERATE.rglob("*.*"))
        made = {file.as_posix(): file.read_bytes() for file in files}
        shutil.rmtree(paths.GENERATE)  # so that there is something to paint
        return made

    return run


@pytest.mark.slow
def test_the_stage_makes_of_shards_what_it_makes_alone(stage, monkeypatch):
    alone = stage()
    for count in (1, 3, 50):
        parts = batches.plan(count)
        random.Random(count).shuffle(parts)

        painted = sum(batches.take_in(batches.paint(part)) for part in parts)
        assert painted == sum(part.pictures for part in parts) == PAINTERS * PROMPTS
        with monkeypatch.context() as patch:
            patch.setattr(loading, "load", lambda params: pytest.fail("it loads the painter"))
            assert stage() == alone
    assert sum(name.endswith(".png") for name in alone) == 20


def test_shards_hold_whole_batches_and_each_has_some_of_every_painter(gallery):
    parts = batches.plan(2)

    asked = [(one.candidate, one.start) for part in parts for one in part.batches]
    names = [one.name for one in jobs.of(gallery).candidates]
    assert gallery.generate.batch_images == 2
    assert sorted(asked) == sorted((name, start) for name in names for start in (0, 2))
    assert [(part.name, part.pictures) for part in parts] == [("1/2", 10), ("2/2", 10)]
    assert {one.candidate for one in parts[0].batches} == set(names)


def test_a_lost_shard_is_planned_again_and_the_stage_does_what_no_worker_did(stage):
    alone = stage()
    first, *others = batches.plan(3)
    for part in others:
        batches.take_in(batches.paint(part))
    batches.take_in(batches.paint(first)[:1])  # a batch of which one picture is there

    (again,) = batches.plan(1)

    assert again.batches == first.batches
    assert stage() == alone


def test_a_worker_paints_with_the_threads_of_who_asks_and_gives_them_back(gallery, monkeypatch):
    (part,) = batches.plan(1)
    used = []
    paint = generation.paint
    monkeypatch.setattr(
        generation, "paint", lambda *a: used.append(torch.get_num_threads()) or paint(*a)
    )
    before = torch.get_num_threads()

    batches.paint(part.model_copy(update={"threads": before + 1, "batches": []}))

    assert used == [before + 1]
    assert torch.get_num_threads() == before


def test_a_worker_says_how_its_clone_differs(gallery, profile, monkeypatch):
    (part,) = batches.plan(1)
    with monkeypatch.context() as other:
        other.setattr(batches, "version", lambda package: "0.0")
        with pytest.raises(ArtifactError, match="library or kind of processor"):
            batches.paint(part)

    weights = paths.CPO / "cpo/pytorch_lora_weights.safetensors"
    shutil.copy(paths.CPO / "cpo-s" / weights.name, weights)
    with pytest.raises(ArtifactError, match="other settings, weights or captions"):
        batches.paint(part)
    (again,) = batches.plan(1)
    switched = yaml.safe_load(paths.profile("toy").read_text())
    switched["generate"]["steps"] += 1
    paths.profile("toy").write_text(yaml.safe_dump(switched))
    with pytest.raises(ArtifactError, match="other settings, weights or captions"):
        batches.paint(again)
    weights.unlink()
    with pytest.raises(ArtifactError, match="run `dvc repro cpo`"):
        batches.paint(again)
