"""The data sheet: what the models learned from and were examined on."""

from collections import Counter

from atelier.criteria import annotations
from atelier.criteria.annotations import Quarantined, Record
from atelier.criteria.tree import Tree
from atelier.reports.evaluation_data import Coverage, DataSheet, Part
from tasks.run import paths


def of(tree: Tree) -> DataSheet:
    """Return the data sheet of the split."""
    parts = {name: _Counted(name) for name in ("train", "validation", "test")}
    train = parts["train"]
    return DataSheet(
        parts=[one.part() for one in parts.values()],
        coverage={
            path: Coverage(
                positive=train.share(train.positive[path]),
                negative=train.share(train.negative[path]),
            )
            for path in tree.leaves()
        },
        quarantined=[
            (row.file, row.reason)
            for row in annotations.read(paths.ANNOTATE / "quarantine.jsonl", Quarantined)
        ],
    )


class _Counted:
    """The records of a part, counted one by one."""

    def __init__(self, name: str) -> None:
        self._name, self._images = name, 0
        self.positive, self.negative = Counter[str](), Counter[str]()
        for record in annotations.stream(paths.SPLIT / f"{name}.jsonl", Record):
            self._images += 1
            self.positive.update(record.positive)
            self.negative.update(record.negative)

    def share(self, count: int) -> float:
        """Return a count of each image, on average."""
        return count / max(self._images, 1)

    def part(self) -> Part:
        """Return how many images there are, and attributes of each."""
        return Part(
            name=self._name,
            images=self._images,
            positives=self.share(self.positive.total()),
            negatives=self.share(self.negative.total()),
        )
