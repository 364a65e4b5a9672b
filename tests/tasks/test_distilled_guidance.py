"""A base like FLUX.1-dev, with guidance as an input, through the stages."""

import pytest

from atelier.config.training import Grids as GridParams
from atelier.errors import ParamsError
from atelier.models import loading
from tasks import generate, sft
from tasks.evaluation import candidates
from tasks.reporting import report_page
from tasks.tracking import saved_model

GRIDS = {"every_steps": 1, "prompts": 1, "steps": 1, "guidance": 1.0}


@pytest.fixture
def distilled(gallery):
    """The gallery's base with the input, and a profile that samples it at 3.5."""
    painter = loading.load(gallery.model)
    config = {**painter.network.config, "guidance_embeds": True}
    network = type(painter.network).from_config(config).eval()
    network.load_state_dict(painter.network.state_dict(), strict=False)
    network.save_pretrained(f"{gallery.model.source}/transformer")
    sampled = gallery.generate.model_copy(update={"distilled_guidance": 3.5, "prompts": 1})
    return gallery.model_copy(update={"generate": sampled})


@pytest.fixture
def read(monkeypatch):
    """What networks read as their guidance input, in order, each value once in a row."""
    from diffusers import FluxTransformer2DModel

    values, forward = [], FluxTransformer2DModel.forward

    def noted(self, *words, guidance=None, **named):
        found = float(guidance[0])
        if not values or values[-1] != found:
            values.append(found)
        return forward(self, *words, guidance=guidance, **named)

    monkeypatch.setattr(FluxTransformer2DModel, "forward", noted)
    return values


def with_grids(profile, **changes):
    grids = GridParams.model_validate(GRIDS | changes)
    training = profile.sft.training.model_copy(update={"grids": grids, "steps": 1})
    return profile.model_copy(
        update={"sft": profile.sft.model_copy(update={"training": training})}
    )


def test_training_reads_one_and_everything_that_samples_reads_the_setting(
    distilled, read, notebook
):
    sft.run(with_grids(distilled, distilled_guidance=2.5), notebook)
    assert read == [1, 2.5]

    read.clear()
    generate.run(distilled, notebook)
    assert read == [3.5]

    assert saved_model._config("cpo-s", distilled)["distilled_guidance"] == 3.5
    cards = list(report_page.subjects(candidates.of(distilled), distilled))
    assert {one.name for one in cards} >= {"theta1", "cpo-s"}
    assert all("3.5 as the network's guidance input" in one.sampling for one in cards)


def test_validation_images_without_the_number_are_refused_before_a_step(distilled, notebook):
    with pytest.raises(ParamsError, match=r"training\.grids\.distilled_guidance should be a n"):
        sft.run(with_grids(distilled), notebook)

    assert not notebook.curves
