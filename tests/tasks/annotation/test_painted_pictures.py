from pathlib import Path

import pytest

from atelier import images
from atelier.config.profile import Profile
from atelier.criteria.tree import parse
from atelier.errors import AnnotationError
from atelier.reporting import silent
from tasks.annotation import painted_pictures

CRITERIA = Path(__file__).parents[3] / "params" / "criteria" / "starter.yaml"


@pytest.fixture
def judge(workspace, profile, vlm):
    """The agent that judges painted pictures, and gives up at once."""
    vlm |= {"tries": 1, "concurrency": 1}
    profile["annotate"] |= {"annotator": "vlm", "vlm": vlm}
    tree = parse(CRITERIA)
    return painted_pictures.annotator(Profile.model_validate(profile), tree)


def test_painted_pictures_are_judged_whatever_their_size(judge, paint, tmp_path):
    files = [paint(tmp_path / f"{seed}.png", seed, size=(3, 5)) for seed in range(9)]

    said = painted_pictures.judge(judge, files, silent)

    hashes = [images.sha256(file) for file in files]
    assert said
    assert [one.image for one in said] == sorted((one.image for one in said), key=hashes.index)


def test_a_painted_picture_without_an_answer_ends_the_comparison(
    judge, paint, tmp_path, model_server
):
    files = [paint(tmp_path / f"{seed}.png", seed) for seed in range(9)]
    model_server.follow(share=0.2, faults=["refusal"], seed=1)

    with pytest.raises(AnnotationError, match=r"[1-4] painted pictures got no") as e:
        painted_pictures.judge(judge, files, silent)

    assert "the model refused" in str(e.value)
    model_server.follow()
    assert painted_pictures.judge(judge, files, silent)
