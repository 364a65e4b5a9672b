"""Document of a study: the page docs/NAME.md, from its results and a template.

Every sentence with a number is made here from the experiments; nothing is typed. What a person
made of them, docs/NAME/reading.md, is put in as it is. README.md shows the methods' table.
"""

import importlib.resources
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from atelier.config.profile import Profile
from atelier.config.study import StudyParams
from atelier.reports.study import claims
from atelier.reports.study.design import MAIN, swept
from atelier.reports.study.results import Found, Results
from atelier.reports.study.tables import Cell, Row, spread, table

SHOWN = ("<!-- table of docs/study.md -->", "<!-- end of the table -->")  # README's, between
_SIGNS = {"omega": "ω", "beta": "β", "slack": "μ", "scale": "s"}


def render(
    name: str,
    study: StudyParams,
    chosen: Mapping[str, int],
    tuned: Found,
    results: Results,
    profile: Profile,
    *,
    planned: int,
    commit: str,
    reading: str,
) -> str:
    """Return the page.

    Args:
        name: Of params/NAME.yaml.
        study: What it holds.
        chosen: The configuration of each method, from 1.
        tuned: What the configurations did on validation.
        results: What was run so far.
        profile: In which it was run.
        planned: Experiments in all.
        commit: At which they were run.
        reading: What a person made of them; may be empty.
    """
    source = importlib.resources.files("atelier.reports.study") / "report.md.j2"
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701  Markdown, no HTML; all words are the project's own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.from_string(source.read_text(encoding="utf-8")).render(
        name=name,
        command="atelier study" + ("" if name == "study" else f" {name}"),
        study=study,
        profile=profile,
        results=results,
        planned=planned,
        commit=commit,
        captions=_captions(results),
        reading=reading.strip(),
        tuned=tuned.metrics,
        table=table,
        tuning=[_tuning(method, study, chosen, tuned, profile) for method in chosen],
        methods=_methods(study, results),
        guided=_guided(study, results),
        swept=_rows(results, "sweep", list(swept(study))),
        varied=_varied(study, results),
        shorter=_shorter(study, results),
        volumes=_volumes(study, results),
        claims=claims.rows(study, results),
    )
    return text.rstrip() + "\n"


def shown_in(readme: str, study: StudyParams, results: Results) -> str:
    """Return a README with the methods' table, best first, where the place for it is marked."""
    before, begin, rest = readme.partition(SHOWN[0])
    _, end, after = rest.partition(SHOWN[1])
    if not end or MAIN not in results.runs:
        return readme
    rows = [
        [*row, results.metric(MAIN, str(row[0]), "vendi")]
        for row in _rows(results, MAIN, results.painters(MAIN))
    ]
    rows.sort(key=lambda row: row[1].estimate)
    configurations = len(next(iter(study.methods.values())))
    lines = [
        begin,
        table(["painter", "#A_neg", "independent judge", "FID", "diversity"], rows),
        "",
        f"*{len(study.seeds)} seeds, {study.settings.get('generate.prompts', 'all')} test "
        f"prompts of {_captions(results)['different']} different captions, {configurations} "
        f"configurations of each method tried on validation; from "
        "docs/study.md.*",
        end,
    ]
    return before + "\n".join(lines) + after


def _captions(results: Results) -> dict[str, int]:
    """How many prompts each run painted, and how many different captions they have."""
    for runs in results.runs.values():
        captions = next(iter(runs.values())).captions
        return {"prompts": len(captions), "different": len(set(captions))}
    return {}


def _rows(results: Results, kind: str, names: Sequence[str]) -> list[list[Any]]:
    """Name, #A_neg by both judges, and FID of some painters."""
    if kind not in results.runs:
        return []
    first, second = results.judges(kind)
    return [
        [
            name,
            results.mean(kind, name, first),
            results.mean(kind, name, second) if second else None,
            results.metric(kind, name, "fid"),
        ]
        for name in names
    ]


def _tuning(
    method: str, study: StudyParams, chosen: Mapping[str, int], tuned: Found, profile: Profile
) -> Row:
    training, entries = profile.cpo.training, study.methods[method]
    tried = ", ".join(
        f"{_settings(entry)}: {tuned.metrics[f'{method}-{place}']['negatives']:.2f}"
        for place, entry in enumerate(entries, start=1)
    )
    seen = f"{training.steps * training.batch_images:,}"
    return [method, len(entries), training.steps, seen, tried, chosen[method]]


def _settings(entry: Any) -> str:
    """The numbers of a configuration that tell it from the method's others."""
    values = {sign: getattr(entry, name, None) for name, sign in _SIGNS.items()}
    return " ".join(f"{s} {v:g}" for s, v in values.items() if isinstance(v, float | int))


def _methods(study: StudyParams, results: Results) -> dict[str, Any]:
    if MAIN not in results.runs:
        return {}
    painters, roots = results.painters(MAIN), results.roots(MAIN)
    judge, independent = results.judges(MAIN)
    rows = []
    for name, own, others, fid in _rows(results, MAIN, painters):
        known = name == study.reference
        less = "" if known else results.difference((MAIN, name), (MAIN, study.reference))
        kid = [1000 * value for value in results.metric(MAIN, name, "kid")]
        rows.append([name, own, others, less, fid, kid, results.metric(MAIN, name, "vendi")])
    return {
        "judge": judge,
        "independent": independent,
        "rows": rows,
        "disagreements": _disagreements(rows),
        "roots": roots,
        "by_root": [
            [name, *(results.mean(MAIN, name, judge, root) for root in roots)]
            for name in painters
        ],
        "trained": [_trained(name, runs) for name, runs in results.trained(MAIN).items()],
    }


def _disagreements(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Painters that the two judges rank differently: gaming the measure would show here."""
    means = [(row[0], row[1].estimate, row[2].estimate) for row in rows if row[2]]
    return [
        f"{one} and {other}"
        for place, (one, mine, theirs) in enumerate(means)
        for other, mine_too, theirs_too in means[:place]
        if (mine - mine_too) * (theirs - theirs_too) < 0
    ]


def _trained(name: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    norms = [norm for run in runs for norm in run["curve"]["gradient_norm"]]
    drift = spread([run["drift"] for run in runs], 3)
    return [name, f"{statistics.median(norms):.3g}", f"{max(norms):.3g}", drift]


def _guided(study: StudyParams, results: Results) -> list[dict[str, Any]]:
    if study.guided is None:
        return []
    parts = (
        ("guided", 0, "With guidance, NPO on the negative branch and without."),
        (
            "guided-dropout",
            study.guided.caption_dropout,
            "The same after trainings that dropped captions.",
        ),
    )
    return [
        {"about": about, "dropout": dropout, "rows": _with_npo(results, kind)}
        for kind, dropout, about in parts
        if kind in results.runs
    ]


def _with_npo(results: Results, kind: str) -> list[Row]:
    def less(name: str) -> Cell:
        alone = name.removesuffix("+npo")
        return "" if name == alone else results.difference((kind, name), (kind, alone))

    rows = _rows(results, kind, results.painters(kind))
    return [[*row[:3], less(row[0]), row[3]] for row in rows]


def _varied(study: StudyParams, results: Results) -> list[Row]:
    if MAIN not in results.runs:
        return []
    return [
        [*row[:3], results.difference(("variants", row[0]), (MAIN, study.proposed)), row[3]]
        for row in _rows(results, "variants", list(study.variants))
    ]


def _shorter(study: StudyParams, results: Results) -> dict[str, Any]:
    if study.steps is None or MAIN not in results.runs:
        return {}
    curves = {name: claims.by_steps(study, results, name) for name in study.steps.methods}
    every = sorted({steps for curve in curves.values() for steps in curve})
    if len(every) < 2:
        return {}
    return {
        "heading": ["method", *(f"{steps} steps" for steps in every)],
        "rows": [
            [name, *(f"{curve[steps]:.2f}" if steps in curve else None for steps in every)]
            for name, curve in curves.items()
        ],
    }


def _volumes(study: StudyParams, results: Results) -> list[Row]:
    kinds = claims.by_volume(study, results)
    if len(kinds) < 2:
        return []
    rows: list[Row] = []
    for share, kind in kinds.items():
        theta1, own = _rows(results, kind, ["theta1", study.proposed])
        rows.append([f"{share:.0%}", theta1[1], *own[1:]])
    return rows
