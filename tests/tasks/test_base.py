import pytest

from atelier import models
from atelier.errors import ArtifactError, ParamsError
from tasks import base, paths


def test_the_base_is_a_pipeline_that_loads_and_paints(studio):
    painter = models.load(studio.model)

    assert painter.latent_shape(32) == (4, 8, 8)
    assert painter.count_tokens("a sea, calm edges") == 6  # words of captions and criteria
    assert {path.name for path in paths.BASE.joinpath("starter").iterdir()} >= {
        "model_index.json",
        "curve.tsv",
        "samples.png",
    }


def test_the_weights_are_half_precision_safetensors(studio):
    files = {path.suffix for path in paths.BASE.rglob("*") if path.is_file()}
    weights = paths.BASE / "starter" / "transformer" / "diffusion_pytorch_model.safetensors"

    assert files <= {".json", ".safetensors", ".tsv", ".png", ".txt", ".model"}
    assert b'"F16"' in weights.read_bytes()[:5000]


def test_training_it_again_gives_the_same_bytes(studio, notebook):
    file = paths.BASE / "starter" / "transformer" / "diffusion_pytorch_model.safetensors"
    first = file.read_bytes()

    base.run(studio, notebook)

    assert file.read_bytes() == first
    assert notebook.pictures == ["base samples"]


def test_a_profile_without_a_base_section_says_so(studio, notebook):
    with pytest.raises(ParamsError, match="`base: null`"):
        base.run(studio.model_copy(update={"base": None}), notebook)


def test_a_corpus_without_captions_is_named(studio, notebook):
    (paths.DATA / "captions.csv").unlink()

    with pytest.raises(ArtifactError, match=r"captions\.csv"):
        base.run(studio, notebook)
