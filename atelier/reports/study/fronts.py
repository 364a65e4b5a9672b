"""Fronts of a study: #A_neg against FID and against diversity, and the area they dominate.

Shapes: ``G`` different captions. A row ``[1 + G]`` holds a number of all pictures, then of
those that are left without each caption.

Fronts are of the first seed, whose trainings cover every strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from atelier.config.study import Sampled, StudyParams
from atelier.metrics import fid, vendi
from atelier.metrics.statistics import Interval, Numbers
from atelier.reports.study import design, numbers
from atelier.reports.study.design import Entrant
from atelier.reports.study.results import Results

Against = Literal["fid", "vendi"]
AGAINST: tuple[Against, ...] = ("fid", "vendi")


@dataclass(frozen=True, eq=False)
class Fronts:
    """The points of a study's first seed, measured with and without each caption."""

    study: StudyParams
    results: Results

    @cache  # noqa: B019 - lives as long as the page is written
    def row(self, sampled: Sampled, painter: str, measure: str) -> Numbers:
        """Return a measure of one painter, ``[1 + G]``: a judge's #A_neg, fid or vendi."""
        run = self.results.runs[sampled][self.study.seeds[0]]
        parts = numbers.without_each(run.captions)
        if measure == "fid":
            features = run.features[painter]
            return np.array([fid.frechet(features[part], run.real) for part in parts])
        if measure == "vendi":
            return np.array([vendi.vendi(run.features[painter][part]) for part in parts])
        counts = np.array([len(bad) for bad in run.negatives[measure][painter]])
        return np.array([counts[part].mean() for part in parts])

    def at(self, sampled: Sampled, painter: str, measure: str) -> float:
        """Return a measure of all pictures of one painter."""
        return float(self.row(sampled, painter, measure)[0])

    @property
    def known(self) -> Sampled:
        """How θ1 is sampled, by which the box is measured: alone where the study does so."""
        return "alone" if "alone" in self.results.runs else "guided"

    def box(self, judge: str, against: Against) -> tuple[float, float]:
        """Return the reference point: #A_neg, and FID or diversity turned about."""
        box = self.study.box
        most = box.negatives * self.at(self.known, "theta1", judge)
        other = self.at(self.known, "theta1", against)
        return most, box.fid * other if against == "fid" else -box.diversity * other

    def area(self, entrant: Entrant, judge: str, against: Against) -> Numbers:
        """Return the share of the box that an entrant's front dominates, ``[1 + G]``.

        The box ends at #A_neg 0 and FID 0, or at the diversity of θ1: beyond that a share can
        be above 1.
        """
        corner = self.box(judge, against)
        sign = 1 if against == "fid" else -1
        painters = design.front(self.study, entrant)
        rows = [
            (
                self.row(entrant.sampled, one, judge),
                sign * self.row(entrant.sampled, one, against),
            )
            for one in painters
        ]
        end = 0.0 if against == "fid" else -self.at(self.known, "theta1", against)
        whole = corner[0] * (corner[1] - end)
        return np.array(
            [
                numbers.hypervolume([(up[at], across[at]) for up, across in rows], corner)
                / whole
                for at in range(len(rows[0][0]))
            ]
        )

    def interval(self, entrant: Entrant, judge: str, against: Against) -> Interval:
        """Return that share with its interval over captions."""
        return numbers.jackknife(self.area(entrant, judge, against), self._pictures(entrant))

    def difference(
        self, one: Entrant, other: Entrant, judge: str, against: Against = "fid"
    ) -> Interval:
        """Return one front's share less another's, paired."""
        apart = self.area(one, judge, against) - self.area(other, judge, against)
        return numbers.jackknife(apart, self._pictures(one))

    def least(self, entrant: Entrant, judge: str) -> tuple[float, str] | None:
        """Return the fewest negatives of a front's sound points, and the painter.

        Sound is an FID of at most ``sound`` times that of θ1; None: no point is.
        """
        most = self.study.sound * self.at(self.known, "theta1", "fid")
        way = entrant.sampled
        sound = [
            (self.at(way, one, judge), one)
            for one in design.front(self.study, entrant)
            if self.at(way, one, "fid") <= most
        ]
        return min(sound, default=None)

    def points(
        self, entrant: Entrant, judge: str, against: Against
    ) -> list[tuple[float, float]]:
        """Return what a front's points have: FID or diversity, and #A_neg."""
        way = entrant.sampled
        return [
            (self.at(way, one, against), self.at(way, one, judge))
            for one in design.front(self.study, entrant)
        ]

    def _pictures(self, entrant: Entrant) -> int:
        return len(self.results.runs[entrant.sampled][self.study.seeds[0]].captions)


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both coordinates, smaller being better."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept
