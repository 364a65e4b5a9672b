import json

import pytest
import torch

from atelier.errors import ArtifactError
from atelier.models import adapters, loading
from tasks import sft
from tasks.run import paths


@pytest.mark.parametrize("family", ["flux", "sd3", "sdxl"])
def test_theta1_is_a_lora_with_its_curve_and_metrics(studio, notebook):
    sft.run(studio, notebook)

    painter = loading.load(studio.model)
    adapters.attach(painter, "theta1", paths.SFT)
    curve = (paths.SFT / "curve.tsv").read_text().splitlines()
    metrics = json.loads((paths.SFT / "metrics.json").read_text())
    assert curve[0].split("\t")[:2] == ["step", "loss"]
    assert [line.split("\t")[0] for line in curve[1:]] == ["1", "2", "3", "4"]
    assert metrics["images"] == 12
    assert metrics["dropped_attributes"] == 0
    assert sorted(notebook.curves) == [1, 2, 3, 4]
    assert not list(paths.RESUME.glob("sft-*"))


def test_attributes_beyond_the_encoders_reach_are_counted(studio, notebook):
    short = studio.model.model_copy(update={"text_tokens": 8})

    sft.run(studio.model_copy(update={"model": short}), notebook)

    assert 0 < notebook.results["dropped_attributes"] < 1


def test_a_missing_split_names_its_stage(studio, notebook):
    (paths.SPLIT / "train.jsonl").unlink()

    with pytest.raises(ArtifactError, match=r"train\.jsonl is absent; run `dvc repro split`"):
        sft.run(studio, notebook)


def test_a_picture_that_went_missing_is_named(studio, notebook):
    (paths.DATA / "3.png").unlink()

    with pytest.raises(ArtifactError, match=r"data/3\.png was readable when it was annotated"):
        sft.run(studio, notebook)


def test_another_seed_does_not_take_over_interrupted_work(studio, notebook, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "save", broken)
        with pytest.raises(KeyboardInterrupt):
            sft.run(studio, notebook)
    (kept,) = paths.RESUME.glob("sft-*")
    training = studio.sft.training.model_copy(update={"seed": 7})
    other = studio.sft.model_copy(update={"training": training})
    notebook.curves.clear()

    sft.run(studio.model_copy(update={"sft": other}), notebook)

    assert sorted(notebook.curves) == [1, 2, 3, 4]  # from the start, in a folder of its own
    assert not kept.exists()


@pytest.fixture
def brought(studio):
    """A LoRA of rank 3 in loras/, as another trainer wrote it."""
    painter = loading.load(studio.model)
    shape = studio.sft.lora.model_copy(update={"rank": 3, "alpha": 1.5})
    adapters.add(painter.network, "theirs", shape, seed=5)
    for parameter in adapters.weights(painter.network, "theirs").values():
        torch.nn.init.normal_(parameter, std=0.1)
    adapters.save(painter, "theirs", paths.LORAS / "theirs")
    return paths.LORAS / "theirs"


def beginning_as(studio, place, **changes):
    changes = {"init": place.as_posix(), "learning_rate": 1e-30, **changes}
    return studio.model_copy(update={"sft": studio.sft.model_copy(update=changes)})


def test_theta1_that_hardly_learns_stays_the_lora_that_it_began_as(
    studio, brought, notebook, capsys
):
    sft.run(beginning_as(studio, brought), notebook)

    painter = loading.load(studio.model)
    adapters.attach(painter, "theta1", paths.SFT)
    adapters.attach(painter, "theirs", brought)
    noise = torch.randn(1, *painter.latent_shape(32), generator=torch.manual_seed(0))
    predicted = {}
    for name in (None, "theta1", "theirs"):
        with adapters.use(painter.network, name):
            condition = painter.encode_texts(["a sea"])
            predicted[name] = painter.predict(noise, torch.tensor([0.5]), condition)
    torch.testing.assert_close(predicted["theta1"], predicted["theirs"], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predicted[None], predicted["theirs"], atol=1e-3)
    assert f"theta1 begins as {brought / adapters.FILE}: " in capsys.readouterr().err


def test_a_lora_of_too_high_a_rank_is_refused_before_any_step(studio, brought, notebook):
    narrow = studio.sft.lora.model_copy(update={"rank": 2})

    with pytest.raises(ArtifactError, match=r"has rank 3, and sft\.lora\.rank 2 cannot"):
        sft.run(beginning_as(studio, brought, lora=narrow), notebook)
    assert not notebook.curves
