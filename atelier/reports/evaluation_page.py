"""The evaluation page: one self-contained HTML file."""

import base64
import importlib.resources
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from atelier.certificates import certificate as certificates
from atelier.criteria.tree import Branch, Tree
from atelier.images import Pixels
from atelier.metrics import judges, negatives
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Result, Score
from atelier.metrics.negatives import Verdicts
from atelier.metrics.statistics import Interval
from atelier.reports import charts
from atelier.reports.charts import Points, Row
from atelier.reports.evaluation_data import Page, Pair, Sweep

_SIDES = (256, 192, 128, 96)  # pixels of a picture in the page: the largest that fits
_MOST_BYTES = 5_000_000  # of all pictures together, before base64
_CASES = 6  # best and worst cases shown of each


@dataclass(frozen=True)
class _Shown:
    """A picture in the page, with what was found on it."""

    source: str  # data URI
    prompt: str
    painter: str
    negatives: list[str]  # phrases

    @property
    def alt(self) -> str:
        """What a screen reader says in its place."""
        found = ", ".join(self.negatives) or "no negative attribute"
        return f"{self.prompt}, painted by {self.painter}; found: {found}"


@dataclass(frozen=True)
class _Case:
    """One prompt, painted by the reference and by the featured θ."""

    prompt: str
    before: _Shown
    after: _Shown
    change: int  # negatives of the featured θ's less the reference's


def render(page: Page) -> str:
    """Return the page as HTML: no script, nothing loaded from elsewhere.

    Everything from outside (captions, file names, reasons) is escaped.
    """
    source = importlib.resources.files("atelier.reports") / "evaluation_page.html.j2"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f}%"
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "−")
    environment.filters["commands"] = _commands
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(page=page, **_shown(page))


@dataclass(frozen=True)
class _Copy:
    """A picture and the training painting closest to it."""

    painter: str
    painted: _Shown
    painting: str  # data URI
    title: str
    distance: float  # in limits

    @property
    def near(self) -> bool:
        """Whether it lies closer than nearly all unseen paintings do."""
        return self.distance < 1


@dataclass(frozen=True)
class _Cell:
    """What one metric says of one painter."""

    text: str
    below: str
    best: bool


@dataclass(frozen=True)
class _Line:
    """One metric in the table of metrics: a text a painter, or why there is none."""

    entry: Entry
    cells: Sequence[_Cell]
    note: str


def _commands(text: str) -> Markup:
    """Return text in which what stands between backticks is shown as something to type."""
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def finding(page: Page) -> str:
    """Return the page's first sentence: what the featured θ changed, with its doubt."""
    before, after = (page.painters[name].result for name in (page.reference, page.featured))
    low, high = after.attributes.negatives, before.attributes.negatives
    change = _change(high.estimate, low.estimate)
    said = (
        f"On {len(page.prompts)} pictures of {page.captions} test captions, "
        f"{page.painters[page.featured].label} shows {low.estimate:.2f} negative attributes an "
        f"image where "
        f"{page.painters[page.reference].label} shows {high.estimate:.2f} ({change})."
    )
    if after.difference:
        gap = after.difference
        said += (
            f" The paired difference is {_signed(gap.estimate)}, its 95% interval over "
            f"captions {_signed(gap.low)} to {_signed(gap.high)}."
        )
    if before.fid and after.fid:
        said += (
            f" FID to the test paintings goes from {before.fid.fid:.2f} to {after.fid.fid:.2f}."
        )
    return said


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _change(before: float, after: float) -> str:
    if before == 0:
        return "from none"
    share = round(100 * (after - before) / before)
    return f"{abs(share)}% {'more' if share > 0 else 'fewer'}"


def _shown(page: Page) -> dict[str, Any]:
    """Template data besides the page: pictures, charts, the best of each column."""
    cases = _chosen_cases(page)
    grid = list(range(min(page.grid_prompts, len(page.prompts))))
    wanted = {(name, index) for name in page.painters for index in grid}
    wanted |= {(name, pair.index) for name, pairs in page.pairs.items() for pair in pairs}
    wanted |= {(name, i) for i in cases for name in (page.reference, page.featured)}
    sources = _encoded(page, sorted(wanted))

    def shown(name: str, index: int) -> _Shown:
        painter = page.painters[name]
        return _Shown(
            source=sources[name, index],
            prompt=page.prompts[index],
            painter=painter.label,
            negatives=_phrases(painter.painted.found[index], page.tree),
        )

    def copy(name: str, pair: Pair) -> _Copy:
        painting = _uri(_webp(pair.painting, _SIDES[1]))
        painted = shown(name, pair.index)
        return _Copy(painted.painter, painted, painting, pair.title, pair.distance)

    def case(index: int) -> _Case:
        before, after = shown(page.reference, index), shown(page.featured, index)
        change = len(after.negatives) - len(before.negatives)
        return _Case(page.prompts[index], before, after, change)

    return {
        "finding": finding(page),
        "grid": {name: [shown(name, index) for index in grid] for name in page.painters},
        "grid_captions": [page.prompts[index] for index in grid],
        "best_cases": [case(index) for index in cases[: len(cases) // 2]],
        "worst_cases": [case(index) for index in cases[len(cases) // 2 :]],
        "best": _best(page),
        "distance": page.painters[page.reference].result.fid,
        "distance_clean": page.painters[page.reference].result.fid_clean,
        "roots": {root: _root_name(page.tree, root) for root in page.tree.roots()},
        "leaves": page.tree.leaves(),
        "studies": [Markup(section) for section in page.studies],  # noqa: S704 - as it says
        "copies": [copy(name, pair) for name, pairs in page.pairs.items() for pair in pairs],
        "lines": _lines(page),
        "judges": judges.compare(
            {name: painter.painted for name, painter in page.painters.items()}, page.prompts
        )
        if page.second
        else {},
        "turned": _turned(page),
        "marks": certificates.marks(page.certificate, list(page.tree.leaves())),
        **_charts(page),
    }


def _chosen_cases(page: Page) -> list[int]:
    """Prompts where the featured θ gained most, then those where it shows most negatives."""
    before, after = (
        negatives.counts(page.painters[name].painted.found, "negative")
        for name in (page.reference, page.featured)
    )
    count = min(_CASES, len(page.prompts) // 2)
    gained = sorted(range(len(page.prompts)), key=lambda i: (after[i] - before[i], i))
    rest = [index for index in range(len(page.prompts)) if index not in gained[:count]]
    failed = sorted(rest, key=lambda i: (-after[i], before[i] - after[i], i))
    return gained[:count] + failed[:count]


def _encoded(page: Page, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Data URIs of pictures, at the largest side at which all of them fit the page."""
    files: list[bytes] = []
    for side in _SIDES:
        files = [_webp(page.painters[name].painted.images[i], side) for name, i in wanted]
        if sum(map(len, files)) <= _MOST_BYTES:
            break
    return dict(zip(wanted, map(_uri, files), strict=True))


def _uri(file: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(file).decode()}"


def _webp(image: Pixels, side: int) -> bytes:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=84, method=4)
    return file.getvalue()


def _phrases(found: Verdicts, tree: Tree) -> list[str]:
    return [
        leaf.negative for path, leaf in tree.leaves().items() if found.get(path) == "negative"
    ]


def _root_name(tree: Tree, root: str) -> str:
    node = tree.criteria[root]
    return node.name if isinstance(node, Branch) else root


def _turned(page: Page) -> list[str]:
    """Painters that the two judges rank the other way round, two by two."""
    counted = [
        (painter.label, painter.result.attributes.negatives.estimate, second.estimate)
        for painter in page.painters.values()
        if (second := painter.result.second) is not None
    ]
    return [
        f"{one} and {other}"
        for (one, mine, theirs), (other, mine_too, theirs_too) in combinations(counted, 2)
        if (mine - mine_too) * (theirs - theirs_too) < 0
    ]


_IN_THE_FIRST_TABLE = {"fid", "kid"}


def _lines(page: Page) -> list[_Line]:
    """Metrics that are not in the first table; unavailable ones keep their places."""
    return [
        _Line(entry, [] if entry.unavailable else _cells(page, entry), _note(page, entry))
        for name, entry in page.entries.items()
        if entry.unavailable or name not in _IN_THE_FIRST_TABLE
    ]


def _cells(page: Page, entry: Entry) -> list[_Cell]:
    results = [painter.result for painter in page.painters.values()]
    name, digits = entry.about.name, entry.about.digits
    if name == "vendi":
        found = [result.diversity for result in results]
        return [_plain("–" if v is None else f"{v:.{digits}f}") for v in found]
    if name == "memorisation":
        return [_near(result) for result in results]
    scores = [result.scores[name] for result in results]
    means = [score.mean.estimate for score in scores]
    return [
        _Cell(
            f"{score.mean.estimate:.{digits}f}",
            _beside_the_base(score, digits),
            best=score.mean.estimate == max(means) > min(means),
        )
        for score in scores
    ]


def _plain(text: str, below: str = "") -> _Cell:
    return _Cell(text, below, best=False)


def _near(result: Result) -> _Cell:
    if result.nearest is None:
        return _plain("–")
    share = result.nearest.share
    below = f"[{100 * share.low:.0f}%, {100 * share.high:.0f}%]"
    return _plain(f"{100 * share.estimate:.0f}%", below)


def _expected(result: Result) -> str:
    if result.nearest is None:
        return ""
    share = result.nearest.expected
    ends = f"{100 * share.low:.0f}% to {100 * share.high:.0f}%"
    return f"new pictures have {100 * share.estimate:.1f}% on average; 95% of painters {ends}"


def _beside_the_base(score: Score, digits: int) -> str:
    """The interval; then the paired difference and how often the base is beaten."""
    parts = [f"[{score.mean.low:.{digits}f}, {score.mean.high:.{digits}f}]"]
    if score.difference is not None:
        low, high = score.difference.low, score.difference.high
        parts.append(
            f"{score.difference.estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        )
    if score.wins is not None:
        parts.append(f"wins {100 * score.wins.estimate:.0f}%")
    return " · ".join(parts).replace("-", "−")


def _note(page: Page, entry: Entry) -> str:
    if entry.about.name == "vendi" and page.unseen is not None:
        return f"{page.unseen[0]:.{entry.about.digits}f} for {page.unseen[1]} test paintings"
    if entry.about.name == "memorisation":
        return _expected(page.painters[page.reference].result)
    return f"{entry.about.better} is better"


def _best(page: Page) -> dict[str, set[str]]:
    """Names of the painters with the best number of each column; of none if all are equal."""
    columns: dict[str, dict[str, float]] = {}
    for name, painter in page.painters.items():
        for column, value in _numbers(painter.result).items():
            columns.setdefault(column, {})[name] = value
    return {
        column: {name for name in row if row[name] == min(row.values()) < max(row.values())}
        for column, row in columns.items()
    }


def _numbers(result: Result) -> dict[str, float]:
    """What is compared column by column, lower is better."""
    found = result.attributes
    numbers = {"negatives": found.negatives.estimate, "positives": -found.positives.estimate}
    numbers |= {root: each.estimate for root, each in found.negatives_by_root.items()}
    if result.fid:
        numbers |= {"fid": result.fid.fid, "kid": result.fid.kid}
    if result.fid_clean:
        numbers["fid_clean"] = result.fid_clean.fid
    if result.second:
        numbers["second"] = result.second.estimate
    return numbers


# Training curves, a chart each: title, and the values it draws by their name in words.
_CURVES = (
    ("Loss", {"loss": "loss"}),
    ("Drift: distance from the base", {"drift": "drift"}),
    (
        "Distance to the aim",
        {"aim_error": "trained", "aim_error_reference": "base, untouched"},
    ),
    (
        "Error against winner and loser",
        {
            "win_error": "winner",
            "win_error_reference": "winner, base",
            "lose_error": "loser",
            "lose_error_reference": "loser, base",
        },
    ),
)


def _charts(page: Page) -> dict[str, Any]:
    def rows(value: Callable[[Result], Interval]) -> list[Row]:
        return [
            Row(painter.label, value(painter.result), strong=name == page.featured)
            for name, painter in page.painters.items()
        ]

    def of_root(root: str) -> Markup:
        return charts.intervals(
            rows(lambda result: result.attributes.negatives_by_root[root]),
            title=f"Negatives of {_root_name(page.tree, root)}",
            unit="negatives an image",
            narrow=True,
        )

    curves = {painter.label: _curves(painter.curve) for painter in page.painters.values()}
    whole = rows(lambda result: result.attributes.negatives)
    return {
        "negatives_chart": charts.intervals(
            whole, title="#A_neg", unit="negatives an image", narrow=False
        ),
        "root_charts": {root: of_root(root) for root in page.tree.roots()},
        "tradeoff_chart": _tradeoff(page, whole),
        "curves": {label: drawn for label, drawn in curves.items() if drawn},
        "drift_chart": charts.lines(
            {
                one.label: one.curve["drift"]
                for one in page.painters.values()
                if "drift" in one.curve
            },
            title="Drift from the base",
            across="step",
        ),
        "sweep_charts": [_sweep(page, sweep) for sweep in page.sweeps],
    }


def _sweep(page: Page, sweep: Sweep) -> tuple[str, list[tuple[str, Markup]]]:
    """A sweep's title, and its charts: negatives, then what FID says of the same painters."""
    painters = [(number, page.painters[name]) for number, name in sweep.points]
    names = [painter.label for _, painter in painters]

    def chart(title: str, values: Sequence[Interval]) -> tuple[str, Markup]:
        numbers = [number for number, _ in painters]
        points = list(zip(numbers, values, strict=True))
        return title, charts.dose(points, names, title=title, across=sweep.across)

    found = [chart("#A_neg", [one.result.attributes.negatives for _, one in painters])]
    distances = [one.result.fid for _, one in painters]
    if all(distances):
        flat = [Interval(d.fid, d.fid, d.fid, d.painted) for d in distances if d]
        found.append(chart("FID to the test paintings", flat))
    return sweep.title, found


def _tradeoff(page: Page, rows: Sequence[Row]) -> Markup:
    """#A_neg against FID, of the painters that have one."""
    placed = [
        (row, painter.result.fid.fid)
        for row, painter in zip(rows, page.painters.values(), strict=True)
        if painter.result.fid is not None
    ]
    if not placed:
        return Markup()
    return charts.tradeoff(
        [row for row, _ in placed],
        [height for _, height in placed],
        title="FID against negatives",
        across="negatives an image →",
        up="↑ FID to the test paintings",
    )


def _curves(curve: Mapping[str, Points]) -> dict[str, Markup]:
    drawn = {
        title: charts.lines(
            {words: curve[name] for name, words in names.items() if name in curve},
            title=title,
            across="step",
        )
        for title, names in _CURVES
    }
    return {title: chart for title, chart in drawn.items() if chart}
