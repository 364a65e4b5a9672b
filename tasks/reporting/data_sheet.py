"""The data sheet: what the models learned from and were examined on."""

from collections.abc import Iterable, Sequence

import numpy as np

from atelier.criteria import annotations
from atelier.criteria.annotations import Quarantined, Record
from atelier.criteria.tree import Tree
from atelier.reports.evaluation_data import Coverage, DataSheet, Part
from tasks.run import paths


def of(tree: Tree) -> DataSheet:
    """Return the data sheet of the split."""
    parts = {
        name: annotations.read(paths.SPLIT / f"{name}.jsonl", Record)
        for name in ("train", "validation", "test")
    }
    train = parts["train"]
    return DataSheet(
        parts=[_part(name, records) for name, records in parts.items()],
        coverage={
            path: Coverage(
                positive=_share(path in record.positive for record in train),
                negative=_share(path in record.negative for record in train),
            )
            for path in tree.leaves()
        },
        quarantined=[
            (row.file, row.reason)
            for row in annotations.read(paths.ANNOTATE / "quarantine.jsonl", Quarantined)
        ],
    )


def _part(name: str, records: Sequence[Record]) -> Part:
    return Part(
        name=name,
        images=len(records),
        positives=_share(len(record.positive) for record in records),
        negatives=_share(len(record.negative) for record in records),
    )


def _share(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values] or [0.0]))
