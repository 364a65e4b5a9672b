import dataclasses

import numpy as np
import pytest

from atelier.metrics import fid
from atelier.reports.study import design
from atelier.reports.study.design import Entrant
from atelier.reports.study.fronts import Fronts, undominated
from atelier.reports.study.results import Results

INSIDE, DPO = Entrant("inside", "alone"), Entrant("dpo", "alone")
JUDGE = "measured-1"


@pytest.fixture
def results(experiments, found):
    return Results({one.name: found(one) for one in experiments}, "starter-features-1")


def counted(run, counts):
    """A run in which each of these painters has so many negatives on every picture."""
    bad = {
        judge: {
            name: [["colour/0"] * counts[name]] * len(run.captions) if name in counts else rows
            for name, rows in painters.items()
        }
        for judge, painters in run.negatives.items()
    }
    return dataclasses.replace(run, negatives=bad)


def test_the_share_of_the_box_that_one_point_dominates_by_hand(study, results, monkeypatch):
    # θ1 is at 4 negatives and FID 10, the box 4 wide and 15 high. Points at (1, 6) and (2, 3):
    # (4-1)(15-6) + (4-2)(6-3) = 33 of 60.
    counts = {"theta1": 4, "dpo-30": 1, "dpo-100": 2}
    run = counted(results.runs["alone"][0], counts)
    distances = {"theta1": 10.0, "dpo-30": 6.0, "dpo-100": 3.0}
    by_features = {run.features[name].tobytes(): value for name, value in distances.items()}

    def frechet(features, real):
        return by_features.get(features.tobytes(), 100.0)

    monkeypatch.setattr(fid, "frechet", frechet)
    fronts = Fronts(study, Results({**results.found, "alone-0": run}, results.independent))

    assert fronts.box(JUDGE, "fid") == (4, 15)
    assert fronts.area(DPO, JUDGE, "fid")[0] == pytest.approx(33 / 60)
    assert fronts.least(DPO, JUDGE) == (1, "dpo-30")


def test_a_front_is_measured_without_each_caption_in_turn(study, results):
    fronts = Fronts(study, results)
    run = results.runs["alone"][0]
    counts = np.array([len(bad) for bad in run.negatives[JUDGE]["inside-0"]])
    without = np.array([caption != "a hill" for caption in run.captions])

    row = fronts.row("alone", "inside-0", JUDGE)
    distance = fronts.row("alone", "inside-0", "fid")

    assert len(row) == 1 + len(set(run.captions))
    assert row[0] == counts.mean()
    assert row[2] == counts[without].mean()
    features = run.features["inside-0"]
    assert distance[2] == pytest.approx(fid.frechet(features[without], run.real))


def test_a_front_less_itself_is_nothing(study, results):
    fronts = Fronts(study, results)

    same = fronts.difference(INSIDE, INSIDE, JUDGE)

    assert (same.low, same.estimate, same.high) == (0, 0, 0)
    one, other = (fronts.interval(entrant, JUDGE, "vendi") for entrant in (INSIDE, DPO))
    apart = fronts.difference(INSIDE, DPO, JUDGE, "vendi")
    assert apart.estimate == pytest.approx(one.estimate - other.estimate)


def test_more_strengths_never_dominate_less(study, results, monkeypatch):
    fronts = Fronts(study, results)
    every = fronts.area(INSIDE, JUDGE, "fid")[0]

    monkeypatch.setattr(design, "front", lambda study, entrant: ["inside-0"])

    assert Fronts(study, results).area(INSIDE, JUDGE, "fid")[0] <= every


def test_undominated_points_are_beaten_by_none():
    points = [(1.0, 4.0), (2.0, 2.0), (3.0, 3.0), (4.0, 1.0), (2.0, 5.0)]

    assert undominated(points) == [(1.0, 4.0), (2.0, 2.0), (4.0, 1.0)]
