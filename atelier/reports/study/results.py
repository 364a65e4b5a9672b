"""Results of a study: what each experiment left, and tables of all of them.

A *kind* of experiment (``methods``, ``sweep``, …) counts once it was run with every seed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atelier.metrics.statistics import Interval
from atelier.reports.study import numbers

_CELL = ["kind", "seed", "judge", "painter", "prompt"]
_RUN = ["kind", "seed", "painter"]


@dataclass(frozen=True)
class Found:
    """What an experiment left.

    Attributes:
        metrics: What evaluate measured, by painter.
        captions: Of each prompt, in order.
        criteria: Paths of the criteria that were judged.
        negatives: For each judge and painter, the bad criteria of each picture, in order.
        trained: The last metrics of each objective's training, and its curve's columns.
    """

    metrics: Mapping[str, Mapping[str, float]]
    captions: Sequence[str]
    criteria: Sequence[str]
    negatives: Mapping[str, Mapping[str, Sequence[Sequence[str]]]]
    trained: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """The experiments of a study that were run.

    Attributes:
        found: By the experiment's name, ``<kind>-<seed>``.
        seeds: How many a whole kind has.
        independent: Name of the judge that never trained, where a profile has it.
    """

    found: Mapping[str, Found]
    seeds: int
    independent: str

    @cached_property
    def runs(self) -> dict[str, dict[int, Found]]:
        """The experiments of each whole kind, by seed."""
        kinds: dict[str, dict[int, Found]] = {}
        for name, one in self.found.items():
            kind, _, seed = name.rpartition("-")
            kinds.setdefault(kind, {})[int(seed)] = one
        return {kind: runs for kind, runs in kinds.items() if len(runs) == self.seeds}

    @cached_property
    def negatives(self) -> pd.DataFrame:
        """#A_neg: a row for each picture and judge, a column for each root of the criteria."""
        rows = [
            dict(zip(_CELL, (kind, seed, judge, painter, prompt), strict=True))
            | Counter(path.partition("/")[0] for path in bad)
            for kind, runs in self.runs.items()
            for seed, run in runs.items()
            for judge, painters in run.negatives.items()
            for painter, pictures in painters.items()
            for prompt, bad in enumerate(pictures)
        ]
        return pd.DataFrame(rows).set_index(_CELL).fillna(0)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """FID and its like: a row for each run and painter, a column for each metric."""
        rows = [
            dict(zip(_RUN, (kind, seed, painter), strict=True)) | dict(row)
            for kind, runs in self.runs.items()
            for seed, run in runs.items()
            for painter, row in run.metrics.items()
        ]
        return pd.DataFrame(rows).set_index(_RUN)

    def judges(self, kind: str) -> tuple[str, str | None]:
        """Return the annotator that trained, and the independent judge if there is one."""
        every = list(next(iter(self.runs[kind].values())).negatives)
        first = next(name for name in every if name != self.independent)
        return first, self.independent if self.independent in every else None

    def painters(self, kind: str) -> list[str]:
        """Return the painters that all runs of a kind have."""
        first, *others = self.runs[kind].values()
        return [name for name in first.metrics if all(name in one.metrics for one in others)]

    def captions(self, kind: str) -> Sequence[str]:
        """Return the caption of each prompt; all runs of a kind paint the same."""
        return next(iter(self.runs[kind].values())).captions

    def roots(self, kind: str) -> list[str]:
        """Return the roots of the criteria that the first judge found bad, sorted."""
        rows: Any = self.negatives.xs((kind, self.judges(kind)[0]), level=["kind", "judge"])
        return sorted(root for root in rows if rows[root].any())

    def cells(
        self, kind: str, painter: str, judge: str, root: str | None = None
    ) -> NDArray[np.float64]:
        """Return #A_neg of each seed and prompt, ``[S, P]``, of one root or all."""
        rows: Any = self.negatives.xs(
            (kind, judge, painter), level=["kind", "judge", "painter"]
        )
        values = rows.sum(axis=1) if root is None else rows[root]
        return np.asarray(values.unstack("prompt"), dtype=np.float64)

    def mean(self, kind: str, painter: str, judge: str, root: str | None = None) -> Interval:
        """Return #A_neg with its interval over seeds and prompts."""
        cells = self.cells(kind, painter, judge, root)
        judged = next(iter(self.runs[kind].values())).criteria
        most = sum(root in (None, path.partition("/")[0]) for path in judged)
        return numbers.crossed_count(cells, self.captions(kind), most=most)

    def difference(
        self, one: tuple[str, str], other: tuple[str, str], judge: str | None = None
    ) -> Interval:
        """Return #A_neg of one kind's painter less that of another, paired.

        Args:
            one: Kind and painter.
            other: The same; seeds and prompts are those of ``one``.
            judge: By default the annotator that trained.
        """
        judge = judge or self.judges(one[0])[0]
        ours, theirs = self.cells(*one, judge), self.cells(*other, judge)
        return numbers.crossed_difference(ours, theirs, self.captions(one[0]))

    def metric(self, kind: str, painter: str, name: str) -> list[float]:
        """Return a metric of each seed, where it was measured."""
        if name not in self.metrics:
            return []
        rows = self.metrics.xs((kind, painter), level=["kind", "painter"])
        return [float(value) for value in rows[name].dropna()]

    def trained(self, kind: str) -> dict[str, list[Mapping[str, Any]]]:
        """Return the trainings of each method, one for each seed."""
        runs = self.runs[kind].values()
        return {name: [run.trained[name] for run in runs] for name in next(iter(runs)).trained}
