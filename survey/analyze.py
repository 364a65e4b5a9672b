"""``atelier survey analyze NAME``: analyzes votes; writes a page, JSON and MLflow metrics."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from atelier import atomic
from survey import files
from survey.app import votes
from survey.app.votes import Rater
from survey.files import Asked, Key, Study
from survey.method import analysis, page
from survey.method.analysis import Answer, Finding
from survey.method.design import Picture, Question
from survey.method.page import Coverage, Page
from survey.results import Results
from tasks.reporting.studies import RESULTS, SECTION
from tasks.tracking import registry

PAGE = "page.html"


def run(name: str) -> None:
    """Analyse all votes that are there; as often as one likes.

    The rule by which people are left out is the one that the profile held when the study was
    made: it cannot be chosen to suit the votes.

    Raises:
        ArtifactError: There is no such study, or its key or its votes are of another.
    """
    study, key = files.study(name), files.key(name)
    book = votes.opened(name)
    raters = book.raters()
    answers = [
        answer
        for rater in raters
        for answer in _answers(rater, book.of(rater.number), study, key)
    ]
    book.close()
    found = _page(study, key, raters, answers)
    content = Results(
        page=found,
        weights={one.name: one.weights for one in key.painters},
        pictures=sorted({one.sha256 for one in key.pictures.values()}),
    ).model_dump_json(indent=1)
    folder = files.folder(name)
    atomic.write(folder / SECTION, page.section(found) + "\n")
    atomic.write(folder / RESULTS, content + "\n")
    atomic.write(folder / PAGE, page.render(found))
    sys.stdout.write(f"{page.sentence(found)}\n{folder / PAGE} tells more\n")
    told = _for_models(found, key)
    if found.study.findings and told:
        md5 = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
        for line in registry.surveyed(name, md5, told):
            sys.stdout.write(f"registry: {line}\n")


def _answers(
    rater: Rater, given: Sequence[votes.Vote], study: Study, key: Key
) -> Iterator[Answer]:
    sheet = study.sheets[rater.group][rater.sheet]
    for vote in given:
        yield Answer(
            rater=str(rater.number),
            group=rater.group,
            number=vote.question,
            question=_question(sheet[vote.question], key),
            choice=vote.choice,
        )


def _question(asked: Asked, key: Key) -> Question:
    return Question(_picture(asked.left, key), _picture(asked.right, key), asked.dimension)


def _picture(name: str, key: Key) -> Picture:
    shown = key.pictures[name]
    return Picture(shown.painter, shown.prompt, shown.ruined)


def _page(study: Study, key: Key, raters: Sequence[Rater], answers: Sequence[Answer]) -> Page:
    # Later painters are compared to earlier ones: "cpo-s preferred to base".
    names = [one.name for one in reversed(key.painters)]
    found = analysis.analyse(
        answers,
        names,
        [one.key for one in study.dimensions],
        list(study.sheets),
        study.captions,
        checks_passed=key.checks_passed,
    )
    counted = {one.rater for one in found.trust if one.counted}
    trusted = [answer for answer in answers if answer.rater in counted]
    return Page(
        name=study.name,
        painters={one.name: one.label for one in key.painters},
        dimensions={one.key: one.name for one in study.dimensions},
        pairs=len(_pairs(study, key)) // len(study.dimensions),
        captions=len(
            {study.captions[one.prompt] for both, _ in _pairs(study, key) for one in both}
        ),
        coverage={
            group: _coverage(group, study, key, raters, trusted) for group in study.sheets
        },
        checks_passed=key.checks_passed,
        study=found,
        provenance=[*sorted(key.made.items()), ("key", key.study[:12])],
    )


def _pairs(study: Study, key: Key) -> set[tuple[frozenset[Picture], str]]:
    """Return every pair along every dimension, checks aside; all groups are asked the same."""
    return {
        (frozenset((question.left, question.right)), question.dimension)
        for sheet in next(iter(study.sheets.values()))
        for question in (_question(asked, key) for asked in sheet)
        if not question.check
    }


def _coverage(
    group: str, study: Study, key: Key, raters: Sequence[Rater], trusted: Sequence[Answer]
) -> Coverage:
    judged = Counter(
        both
        for both, _ in {
            (
                (frozenset((one.question.left, one.question.right)), one.question.dimension),
                one.rater,
            )
            for one in trusted
            if one.group == group
        }
    )
    counts = [judged[pair] for pair in _pairs(study, key)]
    return Coverage(
        invited=sum(rater.group == group for rater in raters),
        wanted=study.raters,
        least=min(counts),
        reached=sum(count >= study.raters for count in counts) / len(counts),
    )


def _for_models(found: Page, key: Key) -> dict[str, tuple[str, Mapping[str, float], str]]:
    """Return for each registered model its scores, its win rates, and a sentence."""
    return {
        one.weights: (one.name, dict(_values(found, one.name)), page.sentence(found))
        for one in key.painters
        if one.weights is not None
    }


def _values(found: Page, painter: str) -> Iterator[tuple[str, float]]:
    for finding in found.study.findings:
        at = f"{finding.group}/{finding.dimension}"
        if finding.scores:
            yield f"{at}/score", finding.scores[painter].estimate
        yield from _rates(finding, painter, at)


def _rates(finding: Finding, painter: str, at: str) -> Iterator[tuple[str, float]]:
    for one in finding.comparisons:
        if one.rate is not None and painter == one.first:
            yield f"{at}/over-{_plain(one.second)}", one.rate.estimate
        if one.rate is not None and painter == one.second:
            yield f"{at}/over-{_plain(one.first)}", 1 - one.rate.estimate


def _plain(painter: str) -> str:
    """Return a painter's name without what MLflow refuses in names."""
    return painter.replace("models:/", "").replace("@", "-").replace("+", "-")
