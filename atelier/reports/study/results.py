"""Results of a study: what each experiment left, and numbers of all of them.

Shapes: ``S`` seeds that a painter was trained with, ``P`` prompts, ``G`` different captions.

A *kind* of experiment is ``alone`` or ``guided``, by how was sampled on the test part, the same
with ``validation-`` before it, or ``volume<percent>``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atelier.metrics.fid import Features
from atelier.metrics.statistics import Interval
from atelier.reports.study import numbers


@dataclass(frozen=True)
class Found:
    """What an experiment left.

    Attributes:
        metrics: What was measured, by painter: ``negatives``, ``fid``, ``kid``, ``vendi``.
        captions: Of each prompt, in order.
        criteria: Paths of the criteria that were judged.
        negatives: For each judge and painter, the bad criteria of each picture, in order.
        trained: The last metrics of each objective's training, and its curve's columns.
        clean: Which of the test paintings have no negative attribute.
        features: Of each painter's pictures, ``[P, D]``.
        real: Of the test paintings.
    """

    metrics: Mapping[str, Mapping[str, float]]
    captions: Sequence[str]
    criteria: Sequence[str]
    negatives: Mapping[str, Mapping[str, Sequence[Sequence[str]]]]
    trained: Mapping[str, Mapping[str, Any]]
    clean: Sequence[bool]
    features: Mapping[str, Features] = field(repr=False)
    real: Features = field(repr=False)


@dataclass(frozen=True)
class Results:
    """The experiments of a study that were run.

    Attributes:
        found: By the experiment's name, ``<kind>-<seed>``.
        independent: Name of the judge that never trained, where a profile has it.
    """

    found: Mapping[str, Found]
    independent: str

    @cached_property
    def runs(self) -> dict[str, dict[int, Found]]:
        """The experiments of each kind, by seed."""
        kinds: dict[str, dict[int, Found]] = {}
        for name, one in self.found.items():
            kind, _, seed = name.rpartition("-")
            kinds.setdefault(kind, {})[int(seed)] = one
        return kinds

    def first(self, kind: str) -> Found:
        """Return the experiment of a kind that was run first."""
        return next(iter(self.runs[kind].values()))

    def judges(self) -> list[str]:
        """Return the annotator that trained, then the independent judge if there is one."""
        every = next(iter(self.found.values())).negatives
        return sorted(every, key=lambda name: name == self.independent)

    def seeds(self, kind: str, painter: str) -> list[int]:
        """Return the seeds that a painter was trained and painted with."""
        return [seed for seed, run in self.runs[kind].items() if painter in run.metrics]

    def roots(self, kind: str) -> list[str]:
        """Return the roots of the criteria that were judged."""
        paths = self.first(kind).criteria
        return list(dict.fromkeys(path.partition("/")[0] for path in paths))

    def cells(
        self,
        kind: str,
        painter: str,
        judge: str,
        root: str | None = None,
        *,
        seeds: Sequence[int] | None = None,
    ) -> NDArray[np.float64]:
        """Return #A_neg of each seed and prompt, ``[S, P]``, of one root or all."""
        rows = [
            self.runs[kind][seed].negatives[judge][painter]
            for seed in (self.seeds(kind, painter) if seeds is None else seeds)
        ]
        return np.array(
            [
                [sum(root in (None, path.partition("/")[0]) for path in bad) for bad in row]
                for row in rows
            ],
            dtype=np.float64,
        )

    def mean(self, kind: str, painter: str, judge: str, root: str | None = None) -> Interval:
        """Return #A_neg with its interval over seeds and prompts."""
        run = self.first(kind)
        most = sum(root in (None, path.partition("/")[0]) for path in run.criteria)
        cells = self.cells(kind, painter, judge, root)
        return numbers.crossed_count(cells, run.captions, most=most)

    def difference(self, one: tuple[str, str], other: tuple[str, str], judge: str) -> Interval:
        """Return #A_neg of one kind's painter less that of another, paired.

        Args:
            one: Kind and painter.
            other: The same; the seeds that both have are compared.
            judge: Whose counts.
        """
        seeds = [seed for seed in self.seeds(*one) if seed in self.seeds(*other)]
        ours, theirs = (self.cells(*each, judge, seeds=seeds) for each in (one, other))
        return numbers.crossed_difference(ours, theirs, self.first(one[0]).captions)

    def metric(self, kind: str, painter: str, name: str) -> list[float]:
        """Return a metric of each seed, where it was measured."""
        rows = [self.runs[kind][seed].metrics[painter] for seed in self.seeds(kind, painter)]
        return [row[name] for row in rows if name in row]

    def trained(self, kind: str, painter: str) -> list[Mapping[str, Any]]:
        """Return the trainings of a painter, one for each seed."""
        return [self.runs[kind][seed].trained[painter] for seed in self.seeds(kind, painter)]
