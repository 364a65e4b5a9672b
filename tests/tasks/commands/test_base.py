import json
import shutil

import pytest

from atelier.errors import ArtifactError, ParamsError
from atelier.models import loading
from tasks.commands import base
from tasks.run import paths

LATER = ("chroma", "z_image")
FAMILIES = pytest.mark.parametrize(
    "family",
    ["flux", "sd3", "sdxl", *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)],
)
NETWORK = {"sdxl": "unet"}  # the others have a transformer
# Five words of captions and criteria. T5 ends a prompt, CLIP begins and ends it, a chat has
# eight tokens around it.
TOKENS = {"sdxl": 7, "z_image": 13}


@FAMILIES
def test_the_base_is_a_pipeline_that_loads_and_paints(studio, family):
    painter = loading.load(studio.model)

    assert painter.component == NETWORK.get(family, "transformer")
    assert painter.latent_shape(32) == (4, 8, 8)
    assert painter.count_tokens("a sea, calm edges") == TOKENS.get(family, 6)
    assert {path.name for path in paths.BASE.joinpath("starter").iterdir()} >= {
        "model_index.json",
        "curve.tsv",
        "samples.png",
    }


@FAMILIES
def test_the_weights_are_half_precision_safetensors(studio, family):
    files = {path.suffix for path in paths.BASE.rglob("*") if path.is_file()}
    weights = weights_of(family)

    assert files <= {".json", ".safetensors", ".tsv", ".png", ".txt", ".model", ".jinja"}
    assert b'"F16"' in weights.read_bytes()[:5000]


@FAMILIES
def test_training_it_again_gives_the_same_bytes(studio, family, notebook):
    file = weights_of(family)
    first = file.read_bytes()

    base.run(studio, notebook)

    assert file.read_bytes() == first
    assert notebook.pictures == ["base samples"]


def weights_of(family):
    folder = paths.BASE / "starter" / NETWORK.get(family, "transformer")
    return folder / "diffusion_pytorch_model.safetensors"


def test_a_profile_without_a_base_section_says_so(studio, notebook):
    with pytest.raises(ParamsError, match="`base: null`"):
        base.run(studio.model_copy(update={"base": None}), notebook)


def test_a_corpus_without_captions_is_named(studio, notebook):
    (paths.DATA / "captions.csv").unlink()

    with pytest.raises(ArtifactError, match=r"captions\.csv"):
        base.run(studio, notebook)


def test_training_goes_on_from_an_earlier_base_and_the_card_says_from_which(studio, notebook):
    earlier = paths.BASE / "earlier"
    shutil.copytree(paths.BASE / "starter", earlier)
    first = weights_of("flux").read_bytes()
    further = studio.base.model_copy(update={"init": str(earlier)})

    base.run(studio.model_copy(update={"base": further}), notebook)

    card = json.loads((paths.BASE / "starter" / "base.json").read_text(encoding="utf-8"))
    before = json.loads((earlier / "base.json").read_text(encoding="utf-8"))
    assert weights_of("flux").read_bytes() != first
    assert codec_of("starter") == codec_of("earlier")
    assert card["base"]["init"] == str(earlier)
    assert card["goes_on_from"] == before


def codec_of(name):
    return (paths.BASE / name / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_an_earlier_base_of_another_size_is_refused(studio, notebook):
    wider = studio.base.network.model_copy(update={"heads": 2 * studio.base.network.heads})
    other = studio.base.model_copy(
        update={"init": str(paths.BASE / "starter"), "network": wider}
    )

    with pytest.raises(ParamsError, match=r"base\.network describes another network"):
        base.run(studio.model_copy(update={"base": other}), notebook)
