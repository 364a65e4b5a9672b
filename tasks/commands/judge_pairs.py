"""``atelier judge pairs``: preference pairs from what a judge says of two pictures.

Pictures of the training part with one caption stand in a ring, in the order of their hashes,
and each meets its next neighbours. The judge sees both, in both orders. The picture wins that
shows more of the good pole in more criteria; contradictions and ties say nothing.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from atelier import atomic
from atelier.annotators import choice
from atelier.annotators.comparing import Compared
from atelier.config.profile import Profile
from atelier.criteria import pairs, tree
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError, ParamsError
from tasks.annotation import annotator as annotators
from tasks.run import paths, progress, split_parts
from tasks.run.console import say


def run(
    profile: Profile, out: Path, criteria: Sequence[str], neighbours: int, most: int
) -> None:
    """Compare pictures of one caption; write the table that ``cpo.pairs.table`` names.

    Args:
        profile: In force; its annotator compares.
        out: The CSV to write.
        criteria: Criteria or branches to compare by; none: all.
        neighbours: Partners that each picture meets.
        most: Pairs that are compared, at most.

    Raises:
        ArtifactError: The training part is absent, or no pair has a winner.
        ParamsError: A criterion is unknown, or the annotator cannot look.
    """
    known = tree.parse(paths.JUDGED_BY)
    asked = wanted(criteria, known)
    records = split_parts.read("train", "judge pairs")
    met = meetings(records, neighbours)[:most]
    judge = choice.of_new_pictures(
        profile.annotate.annotator,
        profile.annotate.vlm,
        known,
        annotators.of_settings(profile.annotate, profile.model.pixels, profile.model.buckets),
        responses=paths.ANSWERS,
    )
    files = [(paths.DATA / records[a].file, paths.DATA / records[b].file) for a, b in met]
    with progress.bar("compare", len(files), "pairs") as report:
        said = judge.compare_many(files, asked, report)
    rows = []
    for (first, second), compared in zip(met, said, strict=True):
        lead = 0 if compared is None else led(compared)
        if lead:
            win, lose = (first, second) if lead > 0 else (second, first)
            caption = records[win].caption
            rows.append((records[win].file, records[lose].file, caption, str(abs(lead))))
    if not rows:
        raise ArtifactError(
            f"of {len(met)} pairs of training pictures with one caption none has a winner by "
            f"{judge.name}; raise --neighbours, or name other criteria"
        )
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*pairs.COLUMNS, "criteria"])
    writer.writerows(rows)
    atomic.write(out, content.getvalue())
    say(f"{out}: {len(rows)} of {len(met)} pairs have a winner by {judge.name}")


def wanted(names: Sequence[str], known: Tree) -> list[str]:
    """Return the paths of criteria or branches that were named; of all if none was.

    Raises:
        ParamsError: One is unknown.
    """
    leaves = list(known.leaves())
    found: dict[str, None] = {} if names else dict.fromkeys(leaves)
    for name in names:
        below = [path for path in leaves if path == name or path.startswith(f"{name}/")]
        if not below:
            raise ParamsError(
                f"--criterion {name!r} is no criterion or branch; the roots are "
                f"{', '.join(known.roots())}"
            )
        found |= dict.fromkeys(below)
    return list(found)


def meetings(records: Sequence[Record], neighbours: int) -> list[tuple[int, int]]:
    """Return which rows meet: those of one caption, each with its next neighbours once."""
    rings: dict[str, list[int]] = {}
    for row in sorted(range(len(records)), key=lambda row: records[row].image):
        rings.setdefault(records[row].caption, []).append(row)
    met: dict[frozenset[int], tuple[int, int]] = {}
    for ring in rings.values():
        for place, row in enumerate(ring):
            for step in range(1, min(neighbours, len(ring) - 1) + 1):
                other = ring[(place + step) % len(ring)]
                met.setdefault(frozenset((row, other)), (row, other))
    return list(met.values())


def led(compared: Compared) -> int:
    """Return in how many more criteria the first picture shows more than the second."""
    choices = list(compared.settled.values())
    return choices.count("first") - choices.count("second")
