"""What is judged is what is learned: the middle square, or the crop of the nearest bucket."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from atelier import images
from atelier.annotators.inspection import Inspector
from atelier.config.model import Buckets
from atelier.config.profile import Profile
from atelier.criteria.tree import parse
from tasks.annotation import annotator
from tasks.run import paths

BUCKETS = Buckets(step_pixels=8, longest_ratio=2.0)
SIZES = {  # width and height of a file: height and width at which training learns it
    (32, 32): (32, 32),
    (90, 45): (24, 48),  # about 32 x 32, in steps of 8, at most 2:1
    (45, 90): (48, 24),
}


@pytest.fixture
def profile_of(workspace, profile):
    def made(buckets, **annotate):
        profile["model"]["buckets"] = None if buckets is None else buckets.model_dump()
        profile["annotate"] |= annotate
        return Profile.model_validate(profile)

    return made


def judged(profile, file):
    """The pixels that a measure sees."""
    seen = []
    tree = parse(paths.CRITERIA / profile.annotate.criteria)
    limits = annotator.of_data(profile, tree).inspector.limits
    Inspector(limits, lambda _, pixels: seen.append(pixels) or []).inspect(file, "0" * 64)
    return seen[0]


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_judged_at_the_crop_that_training_learns(
    profile_of, paint, tmp_path, size
):
    file = paint(tmp_path / "x.png", 1, size=size)
    sizes = images.sizes_of_area(32, BUCKETS.step_pixels, BUCKETS.longest_ratio)
    learned = images.cover(
        images.read(file, 10**6), images.nearest((size[1], size[0]), sizes)
    ).pixels

    seen = judged(profile_of(BUCKETS), file)

    assert seen.shape[:2] == SIZES[size]
    np.testing.assert_array_equal(seen, learned)


def test_without_buckets_the_middle_square_is_judged(profile_of, paint, tmp_path):
    file = paint(tmp_path / "x.png", 1, size=(90, 45))

    assert judged(profile_of(None), file).shape == (32, 32, 3)


def test_the_agent_is_sent_the_same_crop_at_its_own_size(profile_of, paint, tmp_path, vlm):
    file = paint(tmp_path / "x.png", 1, size=(90, 45))
    profile = profile_of(BUCKETS, annotator="vlm", vlm=vlm | {"pixels": 64})
    tree = parse(paths.CRITERIA / profile.annotate.criteria)

    with annotator.of_data(profile, tree).opened() as agent:
        sent = agent._picture(file)

    content = base64.b64decode(sent.partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (96, 48)


def test_what_was_judged_of_the_square_is_judged_again_with_buckets(profile_of):
    tree = parse(paths.CRITERIA / "starter.yaml")

    prints = {
        annotator.of_data(profile_of(buckets), tree).inspector.fingerprint()
        for buckets in (None, BUCKETS, BUCKETS.model_copy(update={"step_pixels": 16}))
    }

    assert len(prints) == 3
