"""docs/NAME.md: a study's tables, figures and claims, from what its experiments found.

Written again after each experiment, so that a study that is still running can be read. Every
sentence with a number is made here from the experiments; nothing is typed. What a person made
of them, docs/NAME/reading.md, is put in as it is. README.md shows the table of the methods.
"""

import io
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atelier import atomic
from atelier.config.profile import Profile
from atelier.config.study import StudyParams
from atelier.metrics.statistics import Interval
from atelier.reports.study import numbers as numbers
from atelier.starter.feature_network import NAME as INDEPENDENT
from flows.dvc.study_runs import Found, swept

DOCUMENTS = Path("docs")
README = Path("README.md")
SHOWN = ("<!-- table of docs/study.md -->", "<!-- end of the table -->")  # README's, between
_REPRODUCED, _NOT, _UNTESTABLE = "reproduced", "**not reproduced**", "not testable here"
_PENDING = "not run yet"


@dataclass(frozen=True)
class Group:
    """The runs of one kind, a seed each, in the order of the seeds."""

    runs: Sequence[Found]
    resamples: int

    def judges(self) -> tuple[str, str | None]:
        """Return the annotator that trained, and the independent judge if there is one."""
        every = list(self.runs[0].negatives)
        first = next(name for name in every if name != INDEPENDENT)
        return first, INDEPENDENT if INDEPENDENT in every else None

    def cells(self, painter: str, judge: str, root: str | None = None) -> np.ndarray:
        """Return #A_neg of each seed and prompt, ``[S, P]``, of one root or all."""
        return np.array(
            [
                [
                    sum(root in (None, path.partition("/")[0]) for path in picture)
                    for picture in run.negatives[judge][painter]
                ]
                for run in self.runs
            ],
            dtype=float,
        )

    def mean(self, painter: str, judge: str, root: str | None = None) -> Interval:
        """Return #A_neg with its interval over seeds and prompts."""
        cells = self.cells(painter, judge, root)
        return numbers.crossed_mean(cells, resamples=self.resamples, seed=0)

    def difference(self, painter: str, other: str, judge: str) -> Interval:
        """Return #A_neg less that of another painter, paired."""
        ours, theirs = self.cells(painter, judge), self.cells(other, judge)
        return numbers.crossed_difference(ours, theirs, resamples=self.resamples, seed=0)

    def metric(self, painter: str, name: str) -> list[float]:
        """Return a metric of each seed, where it was measured."""
        rows = [run.metrics[painter].get(name) for run in self.runs]
        return [value for value in rows if value is not None]

    def painters(self) -> list[str]:
        """Return who painted in all runs."""
        return [p for p in self.runs[0].metrics if all(p in run.metrics for run in self.runs)]


def document(name: str) -> Path:
    """Where a study is written up; its figures lie in the folder of the same name."""
    return DOCUMENTS / f"{name}.md"


def write(
    name: str,
    study: StudyParams,
    chosen: Mapping[str, int],
    tuned: Found,
    results: Mapping[str, Found],
    profile: Profile,
    planned: int,
) -> None:
    """Write docs/NAME.md and its figures from what is there."""
    groups = _groups(study, results)
    lines = [
        "# The study",
        "",
        f"Written by `{_command(name)}` from params/{name}.yaml; do not edit. "
        f"{len(results)} of {planned} experiments were run at commit {_commit()}, "
        f"{len(study.seeds)} seeds each: "
        "the training of θ, the pictures' noise and the prompts' resampling. θ1 is one "
        f"network for all. Profile `{study.profile}`: {profile.model.family}, "
        f"{profile.model.pixels} pixels. Intervals are 95%, bootstrapped over seeds and "
        "prompts together, paired where two painters are compared. #A_neg: lower is better.",
        "",
        *_budget(study, chosen, tuned, profile),
    ]
    if "methods" in groups:
        lines += [*_methods(name, study, groups["methods"]), *_roots(groups["methods"])]
        if name == "study":
            _show(groups["methods"], study)
        lines += _training(name, groups["methods"])
    sections: list[tuple[str, Callable[[StudyParams, Mapping[str, Group]], list[str]]]] = [
        ("Guidance and NPO", _guided),
        ("How hard: a sweep", partial(_swept, name)),
        ("Options of ours", _varied),
        ("Steps to a given #A_neg", _shorter),
        ("How much data", _volumes),
    ]
    for title, section in sections:
        body = section(study, groups)
        if body:
            lines += [f"## {title}", *body, ""]
    if "methods" in groups:
        _tradeoff(DOCUMENTS / name / "tradeoff.png", study, groups)
        lines += [
            "## Negatives against FID",
            "Every painter of the runs above, without guidance; means over the seeds. Down and "
            "to the left is better.",
            "",
            f"![#A_neg against FID]({name}/tradeoff.png)",
            "",
        ]
    lines += ["## Claims of the paper", *_claims(study, groups), ""]
    reading = DOCUMENTS / name / "reading.md"
    if reading.is_file():
        lines += ["## Our reading", reading.read_text(encoding="utf-8").strip(), ""]
    atomic.write(document(name), "\n".join(lines).rstrip() + "\n")


def _command(name: str) -> str:
    return "python -m flows study" + ("" if name == "study" else f" {name}")


def _commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _groups(study: StudyParams, results: Mapping[str, Found]) -> dict[str, Group]:
    """Runs by kind, where each seed has one."""
    found: dict[str, list[Found]] = {}
    for name, one in results.items():
        found.setdefault(name.rsplit("-", 1)[0], []).append(one)
    whole = {name: runs for name, runs in found.items() if len(runs) == len(study.seeds)}
    return {name: Group(runs, study.bootstrap) for name, runs in whole.items()}


def _budget(
    study: StudyParams, chosen: Mapping[str, int], tuned: Found, profile: Profile
) -> list[str]:
    training = profile.cpo.training
    seen = training.steps * training.batch_images
    rows = []
    for name, number in chosen.items():
        tried = ", ".join(
            f"{_settings(entry)}: {tuned.metrics[f'{name}-{place}']['negatives']:.2f}"
            for place, entry in enumerate(study.methods[name], start=1)
        )
        count = len(study.methods[name])
        rows.append([name, str(count), str(training.steps), f"{seen:,}", tried, str(number)])
    return [
        "## Tuning",
        f"On {study.tuning_prompts} captions of the validation part, with a seed of its own "
        f"({study.tuning_seed}); chosen is the lowest #A_neg among the configurations whose "
        "FID is no worse than the base's. Test captions were painted only afterwards, by the "
        f"chosen ones. The base is at {tuned.metrics['base']['negatives']:.2f}, θ1 at "
        f"{tuned.metrics['theta1']['negatives']:.2f}.",
        "",
        *_table(
            ["method", "configurations", "steps", "images seen", "#A_neg of each", "chosen"],
            rows,
        ),
        "",
    ]


def _settings(entry: Any) -> str:
    """The numbers of a configuration that tell it from the method's others."""
    shown = {"omega": "ω", "beta": "β", "slack": "μ", "scale": "s"}
    return " ".join(
        f"{sign} {getattr(entry, name):g}"
        for name, sign in shown.items()
        if isinstance(getattr(entry, name, None), float | int)
    )


def _methods(name: str, study: StudyParams, group: Group) -> list[str]:
    first, second = group.judges()
    rows = []
    for painter in group.painters():
        independent = "–" if second is None else _shown(group.mean(painter, second))
        against = (
            ""
            if painter == study.reference
            else _shown(group.difference(painter, study.reference, first))
        )
        rows.append(
            [
                painter,
                _shown(group.mean(painter, first)),
                independent,
                against,
                _spread(group.metric(painter, "fid"), 1),
                _spread([1000 * value for value in group.metric(painter, "kid")], 1),
                _spread(group.metric(painter, "vendi"), 1),
            ]
        )
    _bars(
        DOCUMENTS / name / "methods.png",
        {painter: group.mean(painter, first) for painter in group.painters()},
    )
    return [
        "## Methods",
        f"Judged by `{first}`, whose judgements trained, and by an independent judge that "
        "never did. FID, KID (times 1000) and diversity (Vendi, higher is more diverse): mean, "
        "and lowest to highest of the seeds.",
        "",
        *_table(
            [
                "painter",
                "#A_neg",
                "independent judge",
                f"less {study.reference}",
                "FID",
                "KID",
                "diversity",
            ],
            rows,
        ),
        "",
        f"![#A_neg of each painter]({name}/methods.png)",
        "",
        *_disagreement(group, first, second),
    ]


def _show(group: Group, study: StudyParams) -> None:
    """Put the methods' table into README.md, best first, where the place for it is marked."""
    if not README.is_file():
        return
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(SHOWN[0])
    _, end, after = rest.partition(SHOWN[1])
    if not end:
        return
    first, second = group.judges()
    order = sorted(group.painters(), key=lambda painter: group.mean(painter, first).estimate)
    rows = [
        [
            painter,
            _shown(group.mean(painter, first)),
            "–" if second is None else _shown(group.mean(painter, second)),
            _spread(group.metric(painter, "fid"), 1),
            _spread(group.metric(painter, "vendi"), 1),
        ]
        for painter in order
    ]
    table = _table(["painter", "#A_neg", "independent judge", "FID", "diversity"], rows)
    lines = [begin, *table, "", _said(study), end]
    atomic.write(README, before + "\n".join(lines) + after)


def _said(study: StudyParams) -> str:
    budgets = {len(entries) for entries in study.methods.values()}
    return (
        f"*{len(study.seeds)} seeds, {study.settings.get('evaluate.prompts', 'all')} test "
        f"prompts, {budgets.pop()} configurations of each method tried on validation; from "
        "docs/study.md.*"
    )


def _disagreement(group: Group, first: str, second: str | None) -> list[str]:
    """Where the two judges rank painters differently: gaming the measure would show here."""
    if second is None:
        return ["There is no independent judge for this profile.", ""]
    painters = group.painters()
    means = {
        judge: {p: group.mean(p, judge).estimate for p in painters} for judge in (first, second)
    }
    turned = [
        f"{one} and {other}"
        for place, one in enumerate(painters)
        for other in painters[:place]
        if (means[first][one] - means[first][other])
        * (means[second][one] - means[second][other])
        < 0
    ]
    if not turned:
        return ["Both judges rank all painters alike.", ""]
    return [f"The judges rank these the other way round: {'; '.join(turned)}.", ""]


def _roots(group: Group) -> list[str]:
    first, _ = group.judges()
    roots = sorted(
        {
            path.partition("/")[0]
            for run in group.runs
            for pictures in run.negatives[first].values()
            for picture in pictures
            for path in picture
        }
    )
    rows = [
        [painter, *(_shown(group.mean(painter, first, root)) for root in roots)]
        for painter in group.painters()
    ]
    return ["### By root", *_table(["painter", *roots], rows), ""]


def _training(name: str, group: Group) -> list[str]:
    """Gradient norms and drift of each training, and a figure of both."""
    rows, curves = [], {}
    for method in group.runs[0].trained:
        norms = [n for run in group.runs for n in run.trained[method]["curve"]["gradient_norm"]]
        drifts = [run.trained[method]["drift"] for run in group.runs]
        curves[method] = [run.trained[method]["curve"] for run in group.runs]
        rows.append(
            [method, f"{statistics.median(norms):.3g}", f"{max(norms):.3g}", _spread(drifts, 3)]
        )
    _curves(DOCUMENTS / name / "training.png", curves)
    return [
        "### Training",
        "Gradient norm before clipping, and √mse between θ and the base at the end.",
        "",
        *_table(["method", "gradient norm, median", "highest", "drift"], rows),
        "",
        f"![Gradient norms and drift]({name}/training.png)",
        "",
    ]


def _guided(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    lines = []
    for label, about in (
        ("guided", "With guidance, NPO on the negative branch and without."),
        ("guided-dropout", "The same after trainings that dropped captions."),
    ):
        if label not in groups or study.guided is None:
            continue
        group = groups[label]
        first, second = group.judges()
        dropout = study.guided.caption_dropout if label == "guided-dropout" else 0
        rows = []
        for painter in group.painters():
            alone = painter.removesuffix("+npo")
            gain = "" if alone == painter else _shown(group.difference(painter, alone, first))
            rows.append(
                [
                    painter,
                    _shown(group.mean(painter, first)),
                    "–" if second is None else _shown(group.mean(painter, second)),
                    gain,
                    _spread(group.metric(painter, "fid"), 1),
                ]
            )
        lines += [
            f"{about} Guidance {study.guided.guidance:g}, caption dropout {dropout:g}.",
            "",
            *_table(
                ["painter", "#A_neg", "independent judge", "less without NPO", "FID"], rows
            ),
            "",
        ]
    return lines


def _own_rows(group: Group, names: Sequence[str]) -> list[list[str]]:
    first, second = group.judges()
    return [
        [
            name,
            _shown(group.mean(name, first)),
            "–" if second is None else _shown(group.mean(name, second)),
            _spread(group.metric(name, "fid"), 1),
        ]
        for name in names
    ]


def _swept(name: str, study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    if study.sweep is None or "sweep" not in groups:
        return []
    group = groups["sweep"]
    names = list(swept(study))
    figure = DOCUMENTS / name / "sweep.png"
    _bars(figure, {n: group.mean(n, group.judges()[0]) for n in names})
    heading = [study.sweep.field, "#A_neg", "independent judge", "FID"]
    return [*_table(heading, _own_rows(group, names)), "", f"![The sweep]({name}/sweep.png)"]


def _varied(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    if "variants" not in groups or "methods" not in groups:
        return []
    varied, own = groups["variants"], groups["methods"]
    first, second = varied.judges()
    rows = [
        [
            name,
            _shown(varied.mean(name, first)),
            "–" if second is None else _shown(varied.mean(name, second)),
            _shown(_across(varied, name, own, study.proposed, first)),
            _spread(varied.metric(name, "fid"), 1),
        ]
        for name in varied.runs[0].trained
    ]
    heading = ["option", "#A_neg", "independent judge", f"less {study.proposed}", "FID"]
    return [
        f"Each is {study.proposed} as chosen with one setting changed; none was tuned.",
        "",
        *_table(heading, rows),
    ]


def _across(group: Group, name: str, other: Group, reference: str, judge: str) -> Interval:
    """A painter of one kind of run less a painter of another: same seeds and prompts."""
    return numbers.crossed_difference(
        group.cells(name, judge),
        other.cells(reference, judge),
        resamples=group.resamples,
        seed=0,
    )


def _by_steps(
    study: StudyParams, groups: Mapping[str, Group], name: str, whole: int
) -> dict[int, float]:
    assert study.steps is not None
    kinds = {steps: f"steps{steps}" for steps in study.steps.values} | {whole: "methods"}
    return {
        steps: groups[kind].mean(name, groups[kind].judges()[0]).estimate
        for steps, kind in sorted(kinds.items())
        if kind in groups
    }


def _whole(groups: Mapping[str, Group]) -> int:
    """Steps of the main comparison's trainings."""
    run = groups["methods"].runs[0]
    return int(max(one["curve"]["step"][-1] for one in run.trained.values()))


def _shorter(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    if study.steps is None or "methods" not in groups:
        return []
    whole = _whole(groups)
    curves = {name: _by_steps(study, groups, name, whole) for name in study.steps.methods}
    every = sorted({steps for curve in curves.values() for steps in curve})
    if len(every) < 2:
        return []
    rows = [
        [name, *(f"{curve[steps]:.2f}" if steps in curve else "–" for steps in every)]
        for name, curve in curves.items()
    ]
    return [
        "Each column is a training of its own, with a schedule of that length; between the "
        "columns nothing was measured.",
        "",
        *_table(["method", *(f"{steps} steps" for steps in every)], rows),
    ]


def _volumes(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    found = _by_volume(study, groups)
    if len(found) < 2:
        return []
    rows = []
    for share, group in found.items():
        first, second = group.judges()
        rows.append(
            [
                f"{share:.0%}",
                _shown(group.mean("theta1", first)),
                _shown(group.mean(study.proposed, first)),
                "–" if second is None else _shown(group.mean(study.proposed, second)),
                _spread(group.metric(study.proposed, "fid"), 1),
            ]
        )
    heading = ["training part", "θ1", study.proposed, "independent judge", "FID"]
    return [
        "θ1 and θ are trained on the share; a larger share holds the smaller ones.",
        "",
        *_table(heading, rows),
    ]


def _by_volume(study: StudyParams, groups: Mapping[str, Group]) -> dict[float, Group]:
    kinds = {share: f"volume{round(100 * share)}" for share in study.volumes} | {1.0: "methods"}
    return {share: groups[kind] for share, kind in sorted(kinds.items()) if kind in groups}


def _claims(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    rows = [
        *_claims_of_methods(study, groups),
        _claim_of_npo(study, groups),
        _claim_of_data(study, groups),
        _claim_of_strength(study, groups),
        _claim_of_speed(study, groups),
        ["experts prefer CPO (84.1% to 15.9% on FLUX)", _UNTESTABLE, "it takes people"],
        [
            "best PickScore, HPSv2, ImageReward, LAION-Aesthetic",
            _UNTESTABLE,
            "these judge photographs and paintings of hundreds of pixels, not drawings of "
            "the starter",
        ],
        [
            "about 10 GPU-hours an epoch on SDXL",
            _UNTESTABLE,
            "no model of that size was trained",
        ],
    ]
    return ["", *_table(["claim", "here", "figure"], rows)]


def _claims_of_methods(study: StudyParams, groups: Mapping[str, Group]) -> list[list[str]]:
    own = study.proposed
    if "methods" not in groups:
        return [[f"{own} lowers #A_neg more than every other method", _PENDING, ""]]
    group = groups["methods"]
    rows = []
    for judge in (judge for judge in group.judges() if judge is not None):
        for other in ("base", "theta1", *(name for name in study.methods if name != own)):
            less = group.difference(own, other, judge)
            rows.append(
                [
                    f"{own} has fewer negatives than {other} (`{judge}`)",
                    _REPRODUCED if less.high < 0 else _NOT,
                    f"{_shown(less)} paired",
                ]
            )
    fids = {p: group.metric(p, "fid") for p in group.painters() if p != "theta1+pos"}
    means = {p: statistics.mean(values) for p, values in fids.items() if values}
    if own in means:
        best = min(means, key=lambda painter: means[painter])
        rows.append(
            [
                f"{own} keeps quality best (lowest FID)",
                _REPRODUCED if best == own else _NOT,
                f"{own} {_spread(fids[own], 1)}; lowest: {best} {_spread(fids[best], 1)}",
            ]
        )
        for other in ("base", "theta1", "dpo"):
            if other in fids:
                worse = min(fids[own]) > max(fids[other])
                better = max(fids[own]) <= min(fids[other])
                rows.append(
                    [
                        f"{own} has no worse FID than {other}",
                        _REPRODUCED if better else _NOT if worse else "undecided",
                        f"{_spread(fids[own], 1)} against {_spread(fids[other], 1)}",
                    ]
                )
    return rows


def _claim_of_npo(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    claim = f"NPO beside {study.proposed} lowers #A_neg further"
    group = groups.get("guided")
    with_npo = f"{study.proposed}+npo"
    if group is None or with_npo not in group.painters():
        return [claim, _PENDING, ""]
    less = group.difference(with_npo, study.proposed, group.judges()[0])
    return [claim, _REPRODUCED if less.high < 0 else _NOT, f"{_shown(less)} paired"]


def _claim_of_data(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    claim = "more annotated data helps"
    found = _by_volume(study, groups)
    if len(found) < 2:
        return [claim, _PENDING, ""]
    least, most = min(found), max(found)
    judge = found[most].judges()[0]
    less = _across(found[most], study.proposed, found[least], study.proposed, judge)
    return [
        claim,
        _REPRODUCED if less.high < 0 else _NOT,
        f"{most:.0%} less {least:.0%} of the data: {_shown(less)}",
    ]


def _claim_of_strength(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    claim = "ω has a sweet spot"
    if "sweep" not in groups or study.sweep is None:
        return [claim, _PENDING, ""]
    group = groups["sweep"]
    judge = group.judges()[0]
    values = {
        float(value): group.mean(name, judge).estimate for name, value in swept(study).items()
    }
    shown = ", ".join(f"{value:g}: {mean:.2f}" for value, mean in values.items())
    return [claim, _REPRODUCED if numbers.sweet_spot(values) else _NOT, shown]


def _claim_of_speed(study: StudyParams, groups: Mapping[str, Group]) -> list[str]:
    claim = "stabilised CPO converges several times faster than L_CPO"
    if study.steps is None or "methods" not in groups or "cpo" not in study.steps.methods:
        return [claim, _PENDING, ""]
    whole = _whole(groups)
    curves = {n: _by_steps(study, groups, n, whole) for n in (study.proposed, "cpo")}
    if any(len(curve) < 2 for curve in curves.values()):
        return [claim, _PENDING, ""]
    level = curves["cpo"][max(curves["cpo"])]
    fewest = numbers.first_below(curves[study.proposed], level)
    figure = f"to L_CPO's {level:.2f} after {whole} steps it takes {study.proposed} "
    figure += "more" if fewest is None else f"at most {fewest}"
    figure += "; half of L_CPO's steps count as faster"
    return [claim, _REPRODUCED if fewest and 2 * fewest <= whole else _NOT, figure]


def _shown(value: Interval) -> str:
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    low, high, mean = min(values), max(values), statistics.mean(values)
    return f"{mean:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _bars(file: Path, values: Mapping[str, Interval]) -> None:
    """Save a figure of means with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.4 * len(values) + 1), layout="constrained")
    axes = figure.subplots()
    names = list(values)[::-1]
    means = [values[name].estimate for name in names]
    ends = [
        [values[name].estimate - values[name].low for name in names],
        [values[name].high - values[name].estimate for name in names],
    ]
    axes.errorbar(means, range(len(names)), xerr=ends, fmt="o", color="#1f4e79", capsize=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("#A_neg, negative attributes a picture")
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    _save(figure, file)


def _tradeoff(file: Path, study: StudyParams, groups: Mapping[str, Group]) -> None:
    """Save a figure of #A_neg against FID: methods, the sweep, options.

    Names stand at the edge, each with a line to its point: points lie too close for names.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    kinds = {
        "methods": ("o", groups["methods"].painters()),
        "sweep": ("s", list(swept(study))),
        "variants": ("^", list(study.variants)),
    }
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    named: list[tuple[float, float, str, str]] = []
    for place, (kind, (marker, painters)) in enumerate(kinds.items()):
        if kind not in groups:
            continue
        group = groups[kind]
        judge = group.judges()[0]
        points = [
            (statistics.mean(group.metric(p, "fid")), group.mean(p, judge).estimate, p)
            for p in painters
            if group.metric(p, "fid")
        ]
        if not points:
            continue
        colour = f"C{place}"
        xs, ys, _ = zip(*points, strict=True)
        axes.scatter(xs, ys, marker=marker, color=colour, label=kind, s=32, zorder=3)
        named += [(up, across, name, colour) for across, up, name in points]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([tick for tick in (5, 10, 15, 20, 30, 50, 100, 200) if _within(tick, axes)])
    axes.margins(y=0.08)
    named.sort()
    low, high = axes.get_ylim()
    heights = _apart([(up - low) / (high - low) for up, *_ in named], 1 / 26)
    for (up, across, name, colour), height in zip(named, heights, strict=True):
        axes.annotate(
            name, (across, up), (1.06, height), xycoords="data", textcoords="axes fraction",
            fontsize=8, va="center", color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.7},
        )  # fmt: skip
    axes.set_xlabel("FID, logarithmic")
    axes.set_ylabel("#A_neg, negative attributes a picture")
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend(fontsize="small", loc="upper left")
    _save(figure, file)


def _within(tick: float, axes: Any) -> bool:
    low, high = axes.get_xlim()
    return bool(low <= tick <= high)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Move rising heights as little as it takes for each to be ``least`` above the one before.

    A cluster keeps its mean.
    """
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _foot(clusters[-1], least) < (
            _foot(clusters[-2], least) + len(clusters[-2]) * least
        ):
            above = clusters.pop()
            clusters[-1] += above
    return [
        _foot(cluster, least) + place * least
        for cluster in clusters
        for place in range(len(cluster))
    ]


def _foot(cluster: Sequence[float], least: float) -> float:
    """Where the lowest of a cluster stands."""
    return statistics.mean(cluster) - (len(cluster) - 1) / 2 * least


def _curves(file: Path, curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> None:
    """Save a figure of gradient norms and drift over the steps, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, name, title in zip(
        both,
        ("gradient_norm", "drift"),
        ("gradient norm", "drift, √mse to the base"),
        strict=True,
    ):
        for place, (method, runs) in enumerate(curves.items()):
            for number, run in enumerate(runs):
                label = method if number == 0 else None
                axes.plot(
                    run["step"][: len(run[name])],
                    run[name],
                    color=f"C{place}",
                    lw=1,
                    label=label,
                )
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.set_yscale("log" if name == "gradient_norm" else "linear")
        axes.grid(color="#dddddd")
    both[1].legend(fontsize="small")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    atomic.write(file, content.getvalue())
