import pytest

from atelier.config.training import Grids as GridParams
from atelier.errors import ArtifactError
from tasks import cpo, generate, sft
from tasks.evaluation import generation
from tasks.run import paths, split_parts
from tasks.training.validation_images import Grids


@pytest.fixture
def emptied(gallery):
    """A function that empties a part after the split."""

    def emptied(part):
        (paths.SPLIT / f"{part}.jsonl").write_text("")
        return gallery

    return emptied


@pytest.mark.parametrize("part", ["test", "validation"])
def test_no_picture_is_painted_of_an_empty_part(emptied, part, notebook, monkeypatch):
    profile = emptied(part)
    changed = profile.generate.model_copy(update={"part": part})
    profile = profile.model_copy(update={"generate": changed})
    monkeypatch.setattr(generation, "paint", lambda *_: pytest.fail("it paints"))

    with pytest.raises(
        ArtifactError, match=rf"{part}.jsonl is empty: .* generate.part .* split\.{part} in"
    ):
        generate.run(profile, notebook)


@pytest.mark.parametrize("stage", [sft, cpo])
def test_nothing_is_trained_on_an_empty_part(emptied, stage, notebook):
    with pytest.raises(ArtifactError, match=r"train\.jsonl is empty: .* raise split\.train"):
        stage.run(emptied("train"), notebook)


def test_grids_of_an_empty_part_are_refused_before_the_training(emptied):
    emptied("validation")

    class Painter:
        def parts(self):
            return type("Pipeline", (), {"vae": None})

    grids = Grids(Painter(), GridParams(every_steps=1, prompts=2, steps=2, guidance=1.0), 32)

    with pytest.raises(ArtifactError, match=r"training\.grids needs some"):
        grids.roles()


def test_a_part_that_has_pictures_is_read(gallery):
    assert len(split_parts.read("test", "generate.part")) == 5
