"""Document of a study: the page docs/NAME.md, from its results and a template.

Every sentence with a number is made here from the experiments; nothing is typed. What a person
made of them, docs/NAME/reading.md, is put in as it is.
"""

import importlib.resources
import statistics
from collections.abc import Iterator, Mapping

import jinja2
from pydantic import TypeAdapter

from atelier.config.objectives import Objective
from atelier.config.profile import Profile
from atelier.config.study import StudyParams
from atelier.reports.study import claims, design
from atelier.reports.study.design import Entrant
from atelier.reports.study.fronts import AGAINST, Fronts
from atelier.reports.study.results import Results
from atelier.reports.study.tables import Cell, Row, spread, table

_FIXED = {"base": "base", "theta1": "θ1", "theta1+pos": "θ1, told every good pole"}
_SIGNS = {"omega": "ω", "beta": "β", "teacher_guidance": "g", "learning_rate": "rate"}


def render(
    name: str,
    study: StudyParams,
    chosen: Mapping[Entrant, str],
    results: Results,
    profile: Profile,
    *,
    commit: str,
    reading: str,
) -> str:
    """Return the page.

    Args:
        name: Of params/NAME.yaml.
        study: What it holds.
        chosen: The painter of each entrant.
        results: What was run.
        profile: In which it was run.
        commit: At which the page was written.
        reading: What a person made of it; may be empty.
    """
    source = importlib.resources.files("atelier.reports.study") / "report.md.j2"
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701  Markdown, no HTML; all words are the project's own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    fronts = Fronts(study, results)
    judged = ["#A_neg", "independent judge"][: len(results.judges())]
    text = environment.from_string(source.read_text(encoding="utf-8")).render(
        name=name,
        title=study.title or f"Study: {name}",
        command="atelier study" + ("" if name == "study" else f" {name}"),
        study=study,
        profile=profile,
        commit=commit,
        captions=_captions(results),
        reading=reading.strip(),
        judges=results.judges(),
        judged=judged,
        front_heading=_front_heading(judged),
        table=table,
        claims=claims.every(study, chosen, results, fronts),
        untestable=claims.UNTESTABLE,
        fronts=[_front(one, study, fronts) for one in chosen],
        chosen=list(_chosen(study, chosen, results)),
        costs=[_cost(one, study, profile) for one in study.methods],
        along=list(_along(study, fronts)),
        tuning=[row for one in chosen for row in _tuning(one, study, chosen, results)],
        roots=results.roots(next(iter(chosen)).sampled),
        by_root=list(_by_root(chosen, results)),
        trained=[_trained(one, chosen, results) for one in chosen],
        volumes=_volumes(study, chosen, results),
        disagreements=_disagreements(chosen, results),
    )
    return text.rstrip() + "\n"


def _captions(results: Results) -> dict[str, int]:
    """How many prompts each run painted, and how many different captions they have."""
    kind = next(kind for kind in results.runs if not kind.startswith(design.VALIDATION))
    captions = results.first(kind).captions
    return {"prompts": len(captions), "different": len(set(captions))}


def strength(study: StudyParams, painter: str) -> str:
    """Return the strength of a painter in signs, as ω 10, with its step at a milestone."""
    method, value = study.trainings[design.training(painter)]
    field = study.methods[method].strength
    steps = design.milestone(painter)
    after = "" if steps is None else f", at step {steps}"
    return f"{_SIGNS.get(field, field)} {value}{after}"


def _front_heading(judged: list[str]) -> list[str]:
    against = {"fid": "FID", "vendi": "diversity"}
    shares = [f"{judge} and {against[one]}" for one in AGAINST for judge in judged]
    return [*shares, *(f"least {judge}" for judge in judged)]


def _front(entrant: Entrant, study: StudyParams, fronts: Fronts) -> Row:
    judges = fronts.results.judges()
    values = ", ".join(strength(study, one) for one in design.trainings(study, entrant))
    least = [fronts.least(entrant, judge) for judge in judges]
    return [
        entrant.name,
        values,
        *(fronts.interval(entrant, judge, against) for against in AGAINST for judge in judges),
        *(None if one is None else f"{one[0]:.2f}" for one in least),
    ]


def _chosen(
    study: StudyParams, chosen: Mapping[Entrant, str], results: Results
) -> Iterator[Row]:
    """Base, θ1 and θ1 told, each way, then what was chosen of each entrant."""
    for way in ("alone", "guided"):
        if way in results.runs:
            for painter, label in _FIXED.items():
                said = label if way == "alone" else f"{label}, guided"
                yield [said, "", 1 if way == "alone" else 2, *_measured(way, painter, results)]
    for one, training in chosen.items():
        measured = _measured(one.sampled, training, results)
        yield [one.name, strength(study, training), one.price, *measured]


def _measured(kind: str, painter: str, results: Results) -> list[Cell]:
    return [
        *(results.mean(kind, painter, judge) for judge in results.judges()),
        results.metric(kind, painter, "fid"),
        results.metric(kind, painter, "vendi"),
        len(results.seeds(kind, painter)),
    ]


def _cost(method: str, study: StudyParams, profile: Profile) -> Row:
    """Images that went through the network in one training, with a gradient and without."""
    settings = study.methods[method]
    objective: Objective = TypeAdapter(Objective).validate_python(
        settings.at(settings.values[0])
    )
    training = profile.cpo.training
    passes = objective.passes(training.batch_images)
    images = training.steps * training.batch_images
    return [
        method,
        objective.about(),
        f"{images:,}",
        f"{round(images * passes.policy):,}",
        f"{round(images * passes.frozen):,}",
    ]


def _along(study: StudyParams, fronts: Fronts) -> Iterator[Row]:
    for method, value in claims.watched(study):
        way = study.methods[method].sampled[0]
        for steps, painter in claims.along(study, fronts, method, value).items():
            yield [
                method,
                strength(study, design.training(painter)),
                steps,
                *(f"{fronts.at(way, painter, judge):.2f}" for judge in fronts.results.judges()),
                f"{fronts.at(way, painter, 'fid'):.1f}",
                f"{fronts.at(way, painter, 'vendi'):.1f}",
            ]


def _tuning(
    entrant: Entrant, study: StudyParams, chosen: Mapping[Entrant, str], results: Results
) -> Iterator[Row]:
    kind = f"{design.VALIDATION}-{entrant.sampled}"
    for training in design.front(study, entrant):
        row = results.first(kind).metrics[training]
        yield [
            entrant.name,
            strength(study, training),
            f"{row['negatives']:.2f}",
            f"{row['fid']:.1f}",
            "chosen" if chosen[entrant] == training else "",
        ]


def _by_root(chosen: Mapping[Entrant, str], results: Results) -> Iterator[Row]:
    judge = results.judges()[0]
    every = [
        *(("alone", painter, label) for painter, label in _FIXED.items()),
        *((one.sampled, training, one.name) for one, training in chosen.items()),
    ]
    for kind, painter, label in every:
        if kind in results.runs:
            roots = results.roots(kind)
            yield [label, *(results.mean(kind, painter, judge, root) for root in roots)]


def _trained(entrant: Entrant, chosen: Mapping[Entrant, str], results: Results) -> Row:
    runs = results.trained(entrant.sampled, design.training(chosen[entrant]))
    norms = [norm for run in runs for norm in run["curve"]["gradient_norm"]]
    drift = spread([run["drift"] for run in runs], 3)
    return [entrant.name, f"{statistics.median(norms):.3g}", f"{max(norms):.3g}", drift]


def _volumes(study: StudyParams, chosen: Mapping[Entrant, str], results: Results) -> list[Row]:
    kinds = claims.by_volume(study, results)
    own = design.proposed(study)[0]
    judge = results.judges()[0]
    return [
        [
            f"{share:.0%}",
            results.mean(kind, "theta1", judge),
            *_measured(kind, design.at_share(chosen[own], share), results)[:-1],
        ]
        for share, kind in kinds.items()
        if len(kinds) > 1
    ]


def _disagreements(chosen: Mapping[Entrant, str], results: Results) -> list[str]:
    """Entrants that the two judges rank differently: gaming the measure would show here."""
    judges = results.judges()
    if len(judges) < 2:
        return []
    first, second = judges
    means = [
        (
            one.name,
            results.mean(one.sampled, chosen[one], first).estimate,
            results.mean(one.sampled, chosen[one], second).estimate,
        )
        for one in chosen
    ]
    return [
        f"{one} and {other}"
        for place, (one, mine, theirs) in enumerate(means)
        for other, mine_too, theirs_too in means[:place]
        if (mine - mine_too) * (theirs - theirs_too) < 0
    ]
