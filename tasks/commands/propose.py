"""``atelier criteria propose``: criteria from labeled pictures, or from an expert's text.

The labeled pictures are parted in three, by their hashes. The agent sees some of the first
part in each round and proposes attribute pairs, or revises its former ones. It judges the
second part by each proposal: how often a pair says of good pictures its good pole and of bad
ones its bad pole goes into the next round's question, and decides which proposal is kept. What
is kept is tried once more on the third part, which nothing was chosen by; only these numbers
say how good it is.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.markup import escape
from rich.table import Table

from atelier import atomic, images
from atelier.annotators.protocol import Picture
from atelier.annotators.vlm import proposing
from atelier.annotators.vlm.annotator import VLM
from atelier.annotators.vlm.proposing import Wanted
from atelier.config.profile import Profile
from atelier.criteria import tables, tree
from atelier.criteria.tree import Pole, Tree
from atelier.errors import AnnotationError, ArtifactError, ParamsError
from atelier.metrics import statistics
from atelier.metrics.statistics import Interval
from atelier.reading import UnreadableError
from tasks.annotation import annotator as annotators
from tasks.run import paths, progress
from tasks.run.console import console, say

FEWEST = 20  # labeled pictures
_FEWEST_EACH = 6  # of either label
_LABELS = ("good", "bad")
_PARTS = (0.4, 0.3)  # shown, and judged between the rounds; the rest is held out
_SHOWN = 8  # pictures of one question
_EXAMPLE = {  # the domain in the prompt while there are no criteria yet
    "positive": "one pole", "negative": "the other pole", "positive_means": "",
    "negative_means": "", "applies": "any", "sources": [],
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What is proposed, and of what.

    Attributes:
        out: The criteria file; one that is there is revised.
        labels: Table with the columns ``file`` and ``label``; None: there is a text alone.
        folder: Where its files lie; None: where the table is.
        text: File of what an expert has written.
        domain: What the pictures are; None: as the file that is revised says.
        pairs: At most.
        rounds: How often the agent is asked.
        seed: Of the draw of parts.
    """

    out: Path
    labels: Path | None
    folder: Path | None
    text: Path | None
    domain: str | None
    pairs: int
    rounds: int
    seed: int


@dataclass(frozen=True)
class Labelled:
    """A picture that an expert finds good or bad."""

    file: Path
    good: bool


@dataclass(frozen=True)
class Told:
    """How far criteria tell good pictures from bad ones.

    Attributes:
        pairs: By path, the share of verdicts that say what the label says; None without any.
        whole: Share of pictures that the sum of all verdicts puts on the label's side, of those
            on which it takes a side.
        silent: Pictures on which it takes none.
        order: Share of good and bad pictures, one of each put side by side, in which the good
            one has the higher sum; a tie is half. Proposals are chosen by it.
        pictures: All of them.
    """

    pairs: Mapping[str, Interval | None]
    whole: Interval | None
    silent: int
    order: float
    pictures: int


def run(profile: Profile, wish: Wish) -> Path:
    """Let the agent propose criteria, try them, and write the best ones.

    Raises:
        ParamsError: The profile has no model that could be asked.
        ArtifactError: There are too few labels, or a file is absent.
        AnnotationError: A label is none, or the model proposes nothing.
    """
    vlm = profile.annotate.vlm
    if vlm is None:
        raise ParamsError(
            "criteria are proposed by a vision-language model, and annotate.vlm of the profile "
            "in force is null; name one there (docs/annotators.md has recipes)"
        )
    draft = tree.parse(wish.out) if wish.out.is_file() else None
    domain = wish.domain or (draft.domain if draft else None)
    if domain is None:
        raise ParamsError(f"{wish.out} is absent, so --domain should say what the pictures are")
    labelled = [] if wish.labels is None else read_labels(wish.labels, wish.folder)
    text = _text(wish.text)
    if not labelled and text is None:
        raise ParamsError("name --labels, a table of labeled pictures, or --text, or both")
    shown, between, held = parted(labelled, wish.seed)
    limits = annotators.of_settings(
        profile.annotate, profile.model.pixels, profile.model.buckets
    )
    nothing = tree.of(
        {"domain": domain, "version": "0", "literature": {}, "criteria": {"pair": _EXAMPLE}},
        "no criteria",
    )
    agent = VLM(draft or nothing, vlm, limits, paths.ANSWERS)
    wanted = Wanted(
        domain=domain,
        version=_next(draft),
        pairs=wish.pairs,
        origin=_origin(agent.name, labelled, wish),
        vocabulary=draft.vocabulary if draft else {},
        text=text,
    )
    proposals = [] if draft is None else [draft]
    tried: list[Told] = []
    with progress.bar("propose", wish.rounds, "rounds") as report:
        for number in range(wish.rounds):
            if labelled and proposals:
                tried.append(_told(agent, proposals[-1], between))
            group = _group(shown, number)
            prompt = proposing.proposing(
                wanted,
                [_LABELS[not one.good] for one in group],
                proposals[-1] if proposals else None,
                {p: _share(one) for p, one in tried[-1].pairs.items()} if tried else None,
            )
            proposals.append(agent.propose(prompt, [one.file for one in group]))
            report(number + 1, {})
    chosen = proposals[-1]
    if labelled:
        tried.append(_told(agent, chosen, between))
        shares = [one.order for one in tried]
        chosen = proposals[shares.index(max(shares))]
    if chosen is draft:
        say(f"No proposal tells good from bad better than {wish.out}, which stays as it is.")
        return wish.out
    told_ = _told(agent, chosen, held) if labelled else None
    atomic.write(wish.out, as_yaml(chosen, told_))
    if told_ is not None:
        console().print(_table(chosen, told_))
    say(_summary(wish.out, chosen, told_))
    return wish.out


def read_labels(table: Path, folder: Path | None) -> list[Labelled]:
    """Return the labeled pictures of a table.

    Raises:
        ArtifactError: The table or a picture is absent, or there are too few labels.
        AnnotationError: A row has no label.
    """
    try:
        found = tables.read(table.read_bytes(), table.name, ("file", "label"))
    except (OSError, UnreadableError) as error:
        raise ArtifactError(f"{table} cannot be read as a table of labels: {error}") from None
    if {"file", "label"} - found.columns or found.mistakes:
        raise AnnotationError(
            f"{table} should have the columns file and label, and {found.says()}"
            + ("; " + tables.listed(found.mistakes) if found.mistakes else "")
        )
    home, labelled = folder or table.parent, {}
    for row in found.rows:
        label, file = row.get("label").lower(), home / row.get("file")
        if label not in _LABELS:
            raise AnnotationError(
                f"{table}, line {row.line}: label should be good or bad, is "
                f"{row.get('label')!r}"
            )
        if not file.is_file():
            raise ArtifactError(
                f"{table}, line {row.line}: {file} is absent; --folder names where the "
                "pictures lie"
            )
        labelled[file] = Labelled(file, label == "good")
    good = sum(one.good for one in labelled.values())
    fewest = min(good, len(labelled) - good)
    if len(labelled) < FEWEST or fewest < _FEWEST_EACH:
        raise ArtifactError(
            f"{table} labels {good} pictures good and {len(labelled) - good} bad; {FEWEST} are "
            f"needed, and {_FEWEST_EACH} of either label, to propose criteria and to try them"
        )
    return list(labelled.values())


def parted(
    labelled: Sequence[Labelled], seed: int
) -> tuple[list[Labelled], list[Labelled], list[Labelled]]:
    """Part pictures, by their hashes: shown, judged between the rounds, and held out.

    Each part has its share of either label. Pictures with the same bytes count once.
    """
    once = {images.sha256(one.file): one for one in labelled}
    parts: tuple[list[Labelled], list[Labelled], list[Labelled]] = ([], [], [])
    for good in (True, False):
        mine = [one for _, one in sorted(once.items()) if one.good is good]
        random.Random(seed).shuffle(mine)
        first = round(_PARTS[0] * len(mine))
        second = first + round(_PARTS[1] * len(mine))
        for part, some in zip(
            parts, (mine[:first], mine[first:second], mine[second:]), strict=True
        ):
            part += some
    return parts


def _group(shown: Sequence[Labelled], number: int) -> list[Labelled]:
    """The pictures of a round: good and bad ones by turns, others each time while there are."""
    good, bad = ([one for one in shown if one.good is side] for side in (True, False))
    half = _SHOWN // 2
    group = []
    for place in range(number * half, (number + 1) * half):
        group += [side[place % len(side)] for side in (good, bad) if side]
    return list(dict.fromkeys(group))


def _told(agent: VLM, criteria: Tree, pictures: Sequence[Labelled]) -> Told:
    judge = dataclasses.replace(agent, tree=criteria)
    with progress.bar("try", len(pictures), "pictures") as report:
        answers = judge.judge_many([Picture(one.file) for one in pictures], report)
    said = [{one.criterion: one.pole for one in answer.judgements} for answer in answers.each]
    return told(criteria, said, [one.good for one in pictures])


def told(criteria: Tree, said: Sequence[Mapping[str, Pole]], good: Sequence[bool]) -> Told:
    """Return how far verdicts tell good pictures from bad ones.

    Args:
        criteria: The tree.
        said: Of each picture, the pole of each criterion that was spoken of.
        good: Its label.
    """
    pairs: dict[str, Interval | None] = {}
    for path in criteria.leaves():
        hits = [(one[path] == "positive") is label
                for one, label in zip(said, good, strict=True) if path in one]  # fmt: skip
        pairs[path] = statistics.share(hits, range(len(hits))) if hits else None
    sums = [sum(1 if pole == "positive" else -1 for pole in one.values()) for one in said]
    sided = [(total > 0) is label for total, label in zip(sums, good, strict=True) if total]
    return Told(
        pairs,
        statistics.share(sided, range(len(sided))) if sided else None,
        silent=sums.count(0),
        order=_order(sums, good),
        pictures=len(said),
    )


def _order(sums: Sequence[int], good: Sequence[bool]) -> float:
    better, worse = ([s for s, label in zip(sums, good, strict=True) if label is side]
                     for side in (True, False))  # fmt: skip
    won = [(one > other) + (one == other) / 2 for one in better for other in worse]
    return sum(won) / len(won) if won else 0.5


def as_yaml(criteria: Tree, told_: Told | None) -> str:
    """Return a criteria file, with what was found of each pair as a comment at its head."""
    lines = [f"{criteria.literature[proposing.SOURCE]}."]
    if told_ is not None:
        lines += [
            f"On {told_.pictures} pictures that nothing was chosen by, so many verdicts say",
            "what the label says (95% intervals):",
            *(f"  {path}: {_share(one)}" for path, one in told_.pairs.items()),
            f"  all together: {_share(told_.whole)}; no side in {told_.silent}",
        ]
    lines += [
        "Edit it as you like. `atelier criteria check` reports mistakes;",
        "`atelier criteria propose` revises this file.",
    ]
    values = criteria.model_dump(exclude_none=True, exclude_defaults=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=96)
    return "".join(f"# {line}\n" for line in lines) + text


def _next(draft: Tree | None) -> str:
    """The version after that of a draft: its last number, one higher."""
    if draft is None:
        return "1"
    head, dot, last = draft.version.rpartition(".")
    return f"{head}{dot}{int(last) + 1}" if last.isdigit() else f"{draft.version}.1"


def _origin(name: str, labelled: Sequence[Labelled], wish: Wish) -> str:
    of = [f"{len(labelled)} labeled pictures"] * bool(labelled)
    of += ["an expert's text"] * (wish.text is not None)
    return f"Proposed by {name} from {' and '.join(of)}"


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file} cannot be read as a text: {error}") from None


def _share(found: Interval | None) -> str:
    if found is None:
        return "no verdict"
    return (
        f"{round(found.estimate * found.count)} of {found.count} "
        f"({max(found.low, 0):.0%} to {min(found.high, 1):.0%})"
    )


def _table(criteria: Tree, told_: Told) -> Table:
    table = Table(title=f"{told_.pictures} pictures that nothing was chosen by")
    for column in ("pair", "good pole", "bad pole", "says what the label says"):
        table.add_column(column)
    for path, leaf in criteria.leaves().items():
        row = (path, leaf.positive, leaf.negative, _share(told_.pairs[path]))
        table.add_row(*map(escape, row))
    table.add_row("all together", "", "", escape(_share(told_.whole)))
    return table


def _summary(out: Path, criteria: Tree, told_: Told | None) -> str:
    count = len(criteria.leaves())
    said = f"{out} has {count} pair{'s' * (count > 1)}, version {criteria.version}."
    if told_ is None:
        return f"{said} No picture was labelled, so nothing was tried."
    return (
        f"{said} Together they put {_share(told_.whole)} held-out pictures on the side of "
        f"their label and take no side in {told_.silent}. Of a good and a bad one, the good "
        f"one comes first in {told_.order:.0%}."
    )
