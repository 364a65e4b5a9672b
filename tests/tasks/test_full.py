"""Full weights instead of LoRAs, through the stages."""

import numpy as np
import pytest
from PIL import Image

from atelier.errors import ParamsError
from atelier.models import adapters, loading
from tasks import cpo, sft
from tasks.commands import export, paint
from tasks.evaluation import candidates
from tasks.run import paths
from tasks.tracking import registry
from tasks.training import estimate


def with_full(studio, *stages, **more):
    values = studio.model_dump() | more
    for stage in stages:
        values[stage]["lora"] = "full"
    return type(studio).model_validate(values)


@pytest.mark.parametrize("family", ["flux", "sdxl"])
@pytest.mark.filterwarnings("ignore:.* drifts at step")  # a toy may; that is not the question
def test_a_full_theta1_teaches_a_lora_and_full_weights(studio, notebook, tmp_path, capsys):
    profile = with_full(studio, "sft")
    sft.run(profile, notebook)
    cpo.run(profile, notebook)

    assert adapters.file(paths.SFT).name == adapters.FULL
    assert adapters.file(paths.CPO / "cpo-s").name == adapters.FILE

    profile = with_full(studio, "sft", "cpo")
    cpo.run(profile, notebook)
    assert {adapters.file(paths.CPO / name).name for name in ("cpo", "cpo-s")} == {
        adapters.FULL
    }
    assert len(candidates.of(profile)) == 5
    assert registry.trained_by("cpo-s", profile)["lora"] == "full"

    wish = paint.Wish(
        prompts=["a sea"], models=["base", "theta1", "cpo-s"], promote=[], suppress=[],
        seeds=[0], steps=2, guidance=1.0, out=tmp_path / "painted",
    )  # fmt: skip
    paint.run(profile, wish)
    pictures = [np.array(Image.open(wish.out / n / "000.png")) for n in wish.models]
    assert len(np.unique(np.stack(pictures).reshape(3, -1), axis=0)) == 3

    with pytest.raises(ParamsError, match="'theta1' is full weights, no LoRA"):
        export.run(profile, "theta1", tmp_path / "theta1.safetensors")

    painter = loading.load(profile.model)
    weights = sum(p.numel() for p in painter.network.parameters())
    estimate.run("cpo", profile, check=False)
    assert capsys.readouterr().out.count(f"{weights:,} weights") == 4  # base, θ1, θ; results


def test_interrupted_it_goes_on_to_the_same_bytes(studio, notebook, monkeypatch):
    training = studio.sft.training.model_dump() | {"ema_decay": 0.9, "checkpoint_steps": 2}
    profile = with_full(studio, "sft", sft=studio.sft.model_dump() | {"training": training})
    sft.run(profile, notebook)
    undisturbed = (paths.SFT / adapters.FULL).read_bytes()
    (paths.SFT / adapters.FULL).unlink()
    notebook.curves.clear()

    from atelier.training import loop

    advance = loop._State.advance

    def broken(state, rate):
        if state.steps == 3:
            raise KeyboardInterrupt
        return advance(state, rate)

    with monkeypatch.context() as patch:
        patch.setattr(loop._State, "advance", broken)
        with pytest.raises(KeyboardInterrupt):
            sft.run(profile, notebook)
    assert list(paths.RESUME.glob("sft-*/step-00000002-*"))
    sft.run(profile, notebook)

    assert (paths.SFT / adapters.FULL).read_bytes() == undisturbed


def test_full_weights_that_cannot_learn_are_refused(studio):
    quantised = studio.model.model_dump() | {"quantise": "int8"}
    with pytest.raises(ValueError, match=r"sft\.lora 'full' trains the base's own weights"):
        with_full(studio, "sft", model=quantised)

    npo = {"objective": "npo", "beta": 500, "learning_rate": 0.001, "w": 0.0, "beside": ["cpo"]}
    values = studio.cpo.model_dump()
    values["objectives"]["npo"] = npo
    values["training"]["batch_images"] = 2
    values["pairs"] = {"source": "table", "table": "pairs.csv"}
    with pytest.raises(ValueError, match=r"cpo\.lora 'full' does not go with .*npo"):
        with_full(studio, "cpo", cpo=values)

    values = studio.sft.model_dump() | {"lora": "ful"}
    with pytest.raises(ValueError, match="should be 'full' or the shape of a LoRA, got 'ful'"):
        type(studio).model_validate(studio.model_dump() | {"sft": values})
