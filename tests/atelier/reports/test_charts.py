import itertools
import xml.etree.ElementTree as ET

import pytest

from atelier.metrics.statistics import Interval
from atelier.reports import charts
from atelier.reports.charts import Row

ROWS = [
    Row("base", Interval(3.2, 2.9, 3.5, 60), strong=False),
    Row('θ <script>"&', Interval(0.8, 0.6, 1.0, 60), strong=True),
]


def drawn():
    return {
        "intervals": charts.intervals(ROWS, title="#A_neg", unit="negatives", narrow=False),
        "tradeoff": charts.tradeoff(ROWS, [9.0, 2.0], title="FID", across="→", up="↑"),
        "lines": charts.lines({"a<b": [(1, 2.0), (2, 1.0)]}, title="Loss", across="step"),
    }


@pytest.mark.parametrize("name", ["intervals", "tradeoff", "lines"])
def test_a_chart_is_well_formed_and_says_in_words_what_it_shows(name):
    root = ET.fromstring(drawn()[name])

    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_the_same_numbers_give_the_same_bytes():
    assert drawn() == drawn()


def test_dots_stand_where_the_axis_says():
    root = ET.fromstring(drawn()["intervals"])

    ticks = {
        node.text: float(node.get("x"))
        for node in root.iter("text")
        if node.get("class") == "tick"
    }
    dots = [float(node.get("cx")) for node in root.iter("circle")]
    unit = ticks["1"] - ticks["0"]
    assert dots == pytest.approx([ticks["0"] + 3.2 * unit, ticks["0"] + 0.8 * unit], abs=0.3)


@pytest.mark.parametrize("high", [0.0, 0.3, 0.7, 1.0, 3.5, 12, 4711, 1e-6])
def test_an_axis_encloses_its_values_with_few_round_numbers(high):
    ticks = charts._ticks(0, high)

    assert ticks[0] == 0
    assert ticks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(ticks) <= 7


def test_labels_keep_their_order_and_their_distance():
    heights = [100.0, 101.0, 20.0, 99.0, 180.0, 179.0]

    spread = charts._spread(heights, lowest=180)

    order = sorted(range(6), key=lambda place: heights[place])
    assert order == sorted(range(6), key=lambda place: spread[place])
    assert all(b - a >= 15 for a, b in itertools.pairwise(sorted(spread)))
    assert min(spread) >= 20
    assert max(spread) <= 180


def test_a_curve_of_one_point_is_not_drawn():
    assert charts.lines({"loss": [(1, 0.5)]}, title="Loss", across="step") == ""
