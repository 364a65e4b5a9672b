"""Results page of a study, and its section of the evaluation page."""

import importlib.resources
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from atelier.metrics.statistics import Interval
from atelier.reports import charts
from atelier.reports.charts import Row
from survey.method.analysis import EVERYBODY, OVERALL, Comparison, Finding, Study


@dataclass(frozen=True)
class Coverage:
    """How often one group has judged the pairs, by those who count.

    Attributes:
        invited: People of the group.
        wanted: People who should see each pair.
        least: People who have judged the pair and dimension that fewest have.
        reached: Share of pairs and dimensions that ``wanted`` people have judged.
    """

    invited: int
    wanted: int
    least: int
    reached: float


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    Attributes:
        name: Of the study.
        painters: Labels by painter.
        dimensions: Names by dimension.
        pairs: Pairs on which each two painters met.
        captions: How many different captions the pairs have.
        coverage: By group.
        checks_passed: Share of checks to be answered rightly by those who count.
        study: What was found.
        provenance: What made the pictures: (name, value).
    """

    name: str
    painters: Mapping[str, str]
    dimensions: Mapping[str, str]
    pairs: int
    captions: int
    coverage: Mapping[str, Coverage]
    checks_passed: float
    study: Study
    provenance: Sequence[tuple[str, str]]


def render(page: Page) -> str:
    """Return a whole page: no script, nothing loaded from elsewhere, everything escaped."""
    return _template("page").render(page=page, section=section(page))


def section(page: Page) -> Markup:
    """Return the study as a section, for the report's style sheet."""
    groups = list(dict.fromkeys(finding.group for finding in page.study.findings))
    return Markup(  # noqa: S704 - the template escapes what it is given
        _template("page.section").render(
            page=page,
            sentence=sentence(page),
            groups={group: _group_name(group) for group in groups},
            findings={group: _of(page, group) for group in groups},
            charts={group: list(_charts(page, group)) for group in groups},
            dimension=lambda key: _dimension_name(page, key),
            left_out=[one for one in page.study.trust if not one.counted],
            counted=sum(one.counted for one in page.study.trust),
            repeats=_repeats(page),
            many=len(page.painters) > 2,
        )
    )


def sentence(page: Page) -> str:
    """Return the finding in a sentence: who was preferred to whom, how often, how sure."""
    if not page.study.findings:
        return "There are no answers yet."
    group = EVERYBODY if len(page.coverage) > 1 else next(iter(page.coverage))
    found = page.study.finding(OVERALL, group)
    said = "; ".join(_preferred(page, one) for one in found.comparisons)
    return f"{said} ({found.raters} people, {found.votes} answers over all dimensions)."


def _preferred(page: Page, one: Comparison) -> str:
    first, second = page.painters[one.first], page.painters[one.second]
    if one.rate is None:
        return f"{first} and {second} were always found about the same"
    rate = one.rate
    return (
        f"{first} was preferred to {second} in {_percent(rate.estimate)} of the decided "
        f"answers (95% interval over captions and people {_percent(rate.low)} to "
        f"{_percent(rate.high)})"
    )


def _of(page: Page, group: str) -> list[Finding]:
    return [finding for finding in page.study.findings if finding.group == group]


def _charts(page: Page, group: str) -> Iterator[tuple[str, Markup]]:
    """Yield a chart for every two painters: the win rate along every dimension."""
    for second, first in itertools.combinations(page.painters, 2):
        rows = [
            Row(
                _dimension_name(page, finding.dimension),
                _in_percent(one.rate),
                _is_all(finding),
            )
            for finding in _of(page, group)
            for one in finding.comparisons
            if {one.first, one.second} == {first, second} and one.rate is not None
        ]
        title = f"{page.painters[first]} preferred to {page.painters[second]}"
        if rows:
            unit = "% of decided answers; 50 is no preference"
            yield title, charts.intervals(rows, title=title, unit=unit, narrow=False)


def _in_percent(rate: Interval) -> Interval:
    low, middle, high = (100 * value for value in (rate.low, rate.estimate, rate.high))
    return Interval(middle, low, high, rate.count)


def _is_all(finding: Finding) -> bool:
    return finding.dimension == OVERALL


def _repeats(page: Page) -> tuple[int, int]:
    """Questions that counted people answered twice, and how many of them alike."""
    counted = [one for one in page.study.trust if one.counted]
    return sum(one.repeats for one in counted), sum(one.consistent for one in counted)


def _dimension_name(page: Page, key: str) -> str:
    return "All dimensions" if key == OVERALL else page.dimensions[key]


def _group_name(group: str) -> str:
    return "All groups together" if group == EVERYBODY else group.capitalize()


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _signed(value: float) -> str:
    """Return a number with two decimals and a true minus, never a minus zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _template(name: str) -> jinja2.Template:
    folder = importlib.resources.files("survey.method")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["number"] = _signed
    environment.filters["probability"] = _probability
    source = (folder / f"{name}.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
