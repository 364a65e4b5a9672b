import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier.annotators import calibration
from atelier.annotators.calibration import Reader, Reading, Standing
from atelier.criteria.annotations import Quarantined
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Measure, parse

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def criteria():
    return parse(ROOT / "params" / "criteria" / "painting.yaml")


def standing(values, positive_at=1.0, negative_at=0.0, pictures=None):
    measure = Measure(name="clutter", positive_at=positive_at, negative_at=negative_at)
    files = [f"{index}.png" for index in range(len(values))]
    return Standing("a/b", measure, pictures or len(values), np.array(values, float), files)


def test_thresholds_leave_the_outermost_share_on_either_side():
    # of 0, 1, …, 100 a fifth lies up to 20 and from 80
    rising = standing(range(101)).proposal(0.2)
    falling = standing(range(101), 0.0, 1.0).proposal(0.2)

    assert (rising.positive_at, rising.negative_at) == (80, 20)
    assert (falling.positive_at, falling.negative_at) == (20, 80)


def test_a_threshold_has_three_digits():
    values = np.linspace(0, math.pi, 101)

    assert standing(values).proposal(0.2).positive_at == 2.51


@pytest.mark.parametrize("values", [range(19), [1.0] * 50])
def test_too_few_values_or_all_alike_give_no_thresholds(values):
    assert standing(values).proposal(0.2) is None


def test_shares_are_of_all_pictures_silent_ones_included():
    judged = standing([0, 0.5, 1, 2], pictures=8)

    assert [judged.share(p) for p in ("positive", "negative", None)] == [0.25, 0.125, 0.625]


@pytest.mark.parametrize(("at", "first"), [((1, 0), "2.png"), ((0, 1), "1.png")])
def test_the_most_positive_picture_comes_first(at, first):
    assert standing([0.5, 0.1, 0.9], *at).ranked()[0][0] == first


def test_measures_that_rank_alike_are_told_and_others_are_not():
    source = np.random.default_rng(0)
    rows = [
        Reading(f"{i}", {"a": i, "b": -(i**3), "c": source.normal(), "d": math.nan})
        for i in range(60)
    ]

    found = list(calibration.redundancies(rows, ["a", "b", "c", "d"], 0.7))

    assert [(a, b) for a, b, _ in found] == [("a", "b")]
    assert found[0][2] == pytest.approx(-1)


def test_a_reader_measures_what_the_caption_does_not_rule_out(tmp_path, criteria):
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    read = Reader(tmp_path, criteria, 512, 10_000)

    still_life = read(Entry("a.png", "a still_life, oil on canvas", "a", "a"))
    unknown = read(Entry("a.png", "", "a", "a"))

    sky = "color-relations/temperature/modulation/local-colour/sky"
    assert sky in unknown.values
    assert sky not in still_life.values
    assert math.isnan(unknown.values[sky])


def test_a_file_that_is_no_picture_is_set_aside(tmp_path, criteria):
    (tmp_path / "a.png").write_text("no")

    assert isinstance(
        Reader(tmp_path, criteria, 512, 10_000)(Entry("a.png", "", "a", "a")), Quarantined
    )


def test_a_standing_leaves_silent_pictures_out(criteria):
    path = "composition/unity/economy/restraint/necessity"
    rows = [Reading("a", {path: 0.3}), Reading("b", {path: math.nan}), Reading("c", {})]

    found = {one.path: one for one in calibration.standings(rows, criteria)}[path]

    assert (found.files, found.values.tolist(), found.pictures) == (["a"], [0.3], 3)
