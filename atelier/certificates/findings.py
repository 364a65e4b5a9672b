"""Findings of an examination: shares with intervals, the verdict of each control.

All intervals are of `metrics.statistics`, over units: pictures, or artworks of which several
pictures were shown. A root's numbers are of the verdicts on all its criteria, and one unit may
give several; the interval knows it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atelier.annotators.comparing import Choice, Compared
from atelier.certificates import controls
from atelier.certificates.certificate import (
    Against,
    Confidence,
    Control,
    Range,
    Standing,
    Verdict,
)
from atelier.certificates.examination import Observed, Said
from atelier.criteria import agreement
from atelier.criteria.tree import Pole, Tree
from atelier.metrics import judges, statistics
from atelier.metrics.statistics import Interval

_POLES: tuple[Pole, Pole] = ("positive", "negative")
_DIGITS = 6
_CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)  # lower ends of the calibration's rows
Truth = Sequence[Mapping[str, Pole]]  # of each picture: what a reference says


@dataclass(frozen=True)
class Pairs:
    """Comparisons of two pictures.

    Attributes:
        places: The two pictures of each pair.
        said: What the judge said of each pair; None where it gave no answer.
    """

    places: Sequence[tuple[int, int]]
    said: Sequence[Compared | None]


@dataclass(frozen=True)
class Examined:
    """All that was observed, and what it is compared with.

    Attributes:
        tree: The criteria.
        units: Of each picture.
        captions: Of each picture; None where there is none.
        observed: What the judge said.
        references: What others say of each picture, by their name; the first one counts most.
        pairs: Comparisons, if the judge was asked for any.
    """

    tree: Tree
    units: Sequence[str]
    captions: Sequence[str | None]
    observed: Observed
    references: Mapping[str, Truth]
    pairs: Pairs | None = None

    def standings(self) -> dict[str, Standing]:
        """Return how the judge stands on each criterion that it or a reference judges."""
        return {path: self._standing([path]) for path in self._paths()}

    def roots(self) -> dict[str, Standing]:
        """Return how it stands on all criteria of each root together."""
        found: dict[str, list[str]] = {}
        for path in self._paths():
            found.setdefault(path.partition("/")[0], []).append(path)
        return {root: self._standing(paths) for root, paths in found.items()}

    def calibration(self) -> list[Confidence]:
        """Return how often answers of each confidence are right, by the first reference."""
        if not self.references:
            return []
        rows = self._rated(self.tree.leaves().keys())
        found = []
        for low, high in zip(_CONFIDENCES, (*_CONFIDENCES[1:], 1.01), strict=True):
            inside = [row for row in rows if low <= row[0] < high]
            if inside:
                said, right, units = zip(*inside, strict=True)
                share = statistics.share(right, units)
                found.append(
                    Confidence(said=round(float(np.mean(said)), _DIGITS), right=_range(share))
                )
        return found

    def _paths(self) -> list[str]:
        """The criteria that the judge or a reference judges, in the order of the tree."""
        spoken = {path for said in self._plain() for path in said or ()}
        for truth in self.references.values():
            spoken |= {path for said in truth for path in said}
        return [path for path in self.tree.leaves() if path in spoken]

    def _plain(self) -> Sequence[Said | None]:
        return self.observed.plain

    def _standing(self, paths: Collection[str]) -> Standing:
        answered = [
            (u, s) for u, s in zip(self.units, self._plain(), strict=True) if s is not None
        ]
        rows = [(path in said, unit) for unit, said in answered for path in paths]
        spoke, units = zip(*rows, strict=True)
        done = {name: self._control(name, paths) for name in self.observed.controls}
        if controls.REPEATED in self.observed.controls:
            done[controls.LOOKS] = self._looks(paths)
        rated = self._rated(paths) if self.references else []
        gap = None
        if rated:
            said, right, of = zip(*rated, strict=True)
            gap = _range(statistics.mean(np.subtract(said, right, dtype=float), of))
        return Standing(
            spoke=_range(statistics.share(spoke, units)),
            controls={name: done[name] for name in controls.ABOUT if name in done},
            against={name: self._against(paths, one) for name, one in self.references.items()},
            overconfidence=gap,
            compared=self._compared(paths),
        )

    def _control(self, name: str, paths: Collection[str]) -> Control:
        kept, opposed, units = [], 0, []
        for said in self.observed.controls[name]:
            for place, (before, after) in enumerate(zip(self._plain(), said, strict=True)):
                for path, pole in self._spoken(before, paths, name, place):
                    if after is not None:
                        now = after.get(path)
                        kept.append(now is not None and now[0] == pole)
                        opposed += now is not None and now[0] != pole
                        units.append(self.units[place])
        if not kept:
            return Control(kept=None, opposed=0.0, verdict="open")
        share = statistics.share(kept, units)
        verdict: Verdict = "open"
        if share.high < controls.KEPT:
            verdict = "fails"
        elif share.low >= controls.KEPT:
            verdict = "passes"
        return Control(
            kept=_range(share), opposed=round(opposed / len(kept), _DIGITS), verdict=verdict
        )

    def _looks(self, paths: Collection[str]) -> Control:
        """How much more a picture's verdict is like its own repetition than a stranger's."""
        apart, alike, units = [], 0, []
        for said in self.observed.controls[controls.REPEATED]:
            for place, (before, after) in enumerate(zip(self._plain(), said, strict=True)):
                other = self._plain()[self.observed.strangers[place]]
                if after is None or other is None:
                    continue
                for path, pole in self._spoken(before, paths, controls.LOOKS, place):
                    own, strange = (path in s and s[path][0] == pole for s in (after, other))
                    apart.append(float(own) - float(strange))
                    alike += path in other and other[path][0] != pole
                    units.append(self.units[place])
        if not apart:
            return Control(kept=None, opposed=0.0, verdict="open")
        gap = statistics.mean(apart, units)
        verdict: Verdict = "open"
        if gap.low > 0:
            verdict = "passes"
        elif gap.high < controls.APART:
            verdict = "fails"
        return Control(
            kept=_range(gap), opposed=round(alike / len(apart), _DIGITS), verdict=verdict
        )

    def _spoken(
        self, said: Said | None, paths: Collection[str], control: str, place: int
    ) -> list[tuple[str, Pole]]:
        """Return the plain verdicts that a control should leave as they are."""
        found = [(path, pole) for path, (pole, _) in (said or {}).items() if path in paths]
        if control != controls.CAPTION:
            return found
        # Of a criterion that the wrong caption rules out, silence is what was asked for.
        caption = self.captions[self.observed.strangers[place]]
        within = self.tree.conceivable(caption or "")
        return [(path, pole) for path, pole in found if path in within]

    def _rated(self, paths: Collection[str]) -> list[tuple[float, bool, str]]:
        """Confidence, whether the first reference says the same, and the unit."""
        truth = next(iter(self.references.values()))
        return [
            (confidence, truth[place][path] == pole, self.units[place])
            for place, said in enumerate(self._plain())
            for path, (pole, confidence) in (said or {}).items()
            if path in paths and path in truth[place]
        ]

    def _against(self, paths: Collection[str], truth: Truth) -> Against:
        first: dict[tuple[str, str], Pole] = {}
        second: dict[tuple[str, str], Pole] = {}
        unit_of: dict[tuple[str, str], str] = {}
        named: list[tuple[bool, bool, str]] = []  # truly negative, called so, unit
        for place, said in enumerate(self._plain()):
            if said is None:
                continue
            for path in paths:
                key = (f"{place} {path}", "")
                unit_of[key] = self.units[place]
                theirs = truth[place].get(path)
                mine = said[path][0] if path in said else None
                if theirs is not None:
                    first[key] = theirs
                if mine is not None:
                    second[key] = mine
                named.append((theirs == "negative", mine == "negative", self.units[place]))
        both = [key for key in unit_of if key in first and key in second]
        counts = agreement.compare(first, second).get("")
        agree = kappa = None
        if both and counts is not None:
            of = [unit_of[key] for key in both]
            agree = _range(statistics.share([first[k] == second[k] for k in both], of))
            cells = [(_POLES.index(first[k]), _POLES.index(second[k])) for k in both]
            found = judges.kappa(counts, cells, of)
            kappa = None if found is None else _range(found)
        return Against(
            both=len(both),
            agree=agree,
            kappa=kappa,
            sensitivity=_share([(called, unit) for true, called, unit in named if true]),
            specificity=_share(
                [(not called, unit) for true, called, unit in named if not true]
            ),
            missed=_share([(key not in second, unit_of[key]) for key in first]),
            alone=sum(key not in first for key in second),
        )

    def _compared(self, paths: Collection[str]) -> dict[str, Range]:
        """Share of comparisons that both orders settle alike, and of these that are right."""
        if self.pairs is None:
            return {}
        settled: list[tuple[bool, str]] = []
        right: dict[str, list[tuple[bool, str]]] = {name: [] for name in self.references}
        for (one, other), said in zip(self.pairs.places, self.pairs.said, strict=True):
            if said is None:
                continue
            unit = f"{self.units[one]} {self.units[other]}"
            for path in paths:
                if path in said.forth:
                    settled.append((path in said.settled, unit))
                choice = said.settled.get(path)
                for name, truth in self.references.items():
                    better = _better(truth[one].get(path), truth[other].get(path))
                    if choice not in (None, "neither") and better is not None:
                        right[name].append((choice == better, unit))
        found = {"settled": _share(settled), **{n: _share(rows) for n, rows in right.items()}}
        return {name: one for name, one in found.items() if one is not None}


def _better(first: Pole | None, second: Pole | None) -> Choice | None:
    """Which of two pictures has the good pole, where the other has the bad one."""
    if {first, second} != {"positive", "negative"}:
        return None
    return "first" if first == "positive" else "second"


def _share(rows: Sequence[tuple[bool, str]]) -> Range | None:
    if not rows:
        return None
    hits, units = zip(*rows, strict=True)
    return _range(statistics.share(hits, units))


def _range(found: Interval) -> Range:
    """An interval as a file holds it: rounded, for the version is a hash of it."""
    return Range(
        estimate=round(found.estimate, _DIGITS),
        low=round(max(found.low, -1.0), _DIGITS),  # without a second unit it has no end
        high=round(min(found.high, 1.0), _DIGITS),
        count=found.count,
    )
