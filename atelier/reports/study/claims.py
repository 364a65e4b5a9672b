"""Claims that a study checks, and what its results say to each, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from atelier.config.study import Sampled, StudyParams
from atelier.metrics import vendi
from atelier.metrics.statistics import Interval
from atelier.reports.study import design, numbers
from atelier.reports.study.design import Entrant
from atelier.reports.study.fronts import Fronts
from atelier.reports.study.results import Results
from atelier.reports.study.tables import interval

HOLDS, NOT, OPEN = "holds", "does not hold", "not decided"
UNTESTABLE = (
    "that experts prefer CPO (84.1% to 15.9% on FLUX): it takes people",
    "best PickScore, HPSv2, ImageReward, LAION-Aesthetic: these judge photographs and "
    "paintings of hundreds of pixels",
    "about 10 GPU-hours an epoch on SDXL: no model of that size was trained",
)
_FASTER = 5  # "several times faster": in at most a fifth of the steps


@dataclass(frozen=True)
class Claim:
    """A claim, what became of it here, and the figures."""

    says: str
    verdict: str
    figures: str


def every(
    study: StudyParams, chosen: Mapping[Entrant, str], results: Results, fronts: Fronts
) -> list[Claim]:
    """Return each claim with its verdict, the proposed methods' first."""
    own = design.proposed(study)
    return [
        *(_told(one, chosen[one], results) for one in own if "guided" in results.runs),
        *(one for entrant in own for one in _front(entrant, study, fronts)),
        *_goal(study, chosen, results),
        *_speed(study, fronts),
        *_collapse(study, fronts),
        *(_diversity(one, chosen[one], study, results) for one in own),
        *_data(study, chosen, results),
    ]


def _told(entrant: Entrant, training: str, results: Results) -> Claim:
    """Against θ1 told every good pole, sampled guided: more is known to it."""
    one, other = (entrant.sampled, training), ("guided", "theta1+pos")
    apart = {judge: results.difference(one, other, judge) for judge in results.judges()}
    passes = "half of its passes" if entrant.price == 1 else "as many passes"
    return Claim(
        f"{entrant.name}, of captions alone, has fewer negatives than θ1 told every good pole "
        f"and guided, for {passes}",
        verdict([value.high < 0 for value in apart.values()],
                [value.low > 0 for value in apart.values()]),
        _by_judge(apart),
    )  # fmt: skip


def _front(entrant: Entrant, study: StudyParams, fronts: Fronts) -> Iterator[Claim]:
    """Against every other method's front, a line for each outcome."""
    judges = fronts.results.judges()
    sorts: dict[str, list[str]] = {HOLDS: [], OPEN: [], NOT: []}
    for other in design.entrants(study):
        if other.method in study.proposed:
            continue
        apart = {judge: fronts.difference(entrant, other, judge) for judge in judges}
        outcome = verdict(
            [value.low > 0 for value in apart.values()],
            [value.high < 0 for value in apart.values()],
        )
        outside = not any(fronts.area(other, judge, "fid")[0] for judge in judges)
        far = "; no point of its own lies in the box" if outside else ""
        sorts[outcome].append(f"{other.name} ({_by_judge(apart)}{far})")
    for outcome, others in sorts.items():
        if others:
            yield Claim(
                f"{entrant.name}'s front of #A_neg against FID dominates more of the box than "
                f"that of {len(others)} other method{'s' * (len(others) > 1)}",
                outcome,
                "; ".join(others),
            )


def _goal(
    study: StudyParams, chosen: Mapping[Entrant, str], results: Results
) -> Iterator[Claim]:
    if study.goal is None:
        return
    goal = study.goal
    for one in design.proposed(study):
        if one.price > 1:
            continue
        first, *second = (results.mean(one.sampled, chosen[one], j) for j in results.judges())
        distance = results.metric(one.sampled, chosen[one], "fid")
        mean = sum(distance) / len(distance)
        there = [
            first.estimate <= goal.negatives,
            all(value.estimate <= goal.independent for value in second),
            mean <= goal.fid,
        ]
        also = f", {second[0].estimate:.2f} by the independent judge" if second else ""
        yield Claim(
            f"{one.name} is at #A_neg {goal.negatives:g} or less, {goal.independent:g} by the "
            f"independent judge, with an FID of at most {goal.fid:g} and one pass a step",
            HOLDS if all(there) else NOT,
            f"{first.estimate:.2f}{also}, FID {mean:.1f}, mean of {len(distance)} seed"
            f"{'s' * (len(distance) > 1)}",
        )


def along(study: StudyParams, fronts: Fronts, method: str, value: object) -> dict[int, str]:
    """Return the painters of one training by the steps that it had taken."""
    settings = study.methods[method].objective
    name = next(key for key, at in study.trainings.items() if at == (method, value))
    run = fronts.results.runs[study.methods[method].sampled[0]][study.seeds[0]]
    whole = int(run.trained[name]["curve"]["step"][-1])
    return {steps: f"{name}@{steps}" for steps in settings.get("milestones", ())} | {
        whole: name
    }


def watched(study: StudyParams) -> list[tuple[str, object]]:
    """Return method and strength of the trainings that were painted on the way."""
    return [
        (method, value)
        for method, value in study.trainings.values()
        if study.methods[method].objective.get("milestones")
    ]


def _speed(study: StudyParams, fronts: Fronts) -> Iterator[Claim]:
    """Steps until the stabilised objective is where L_CPO is at its best."""
    judge = fronts.results.judges()[0]
    curves: dict[str, list[tuple[str, dict[int, float]]]] = {}
    for method, value in watched(study):
        settings = study.methods[method].objective
        way = study.methods[method].sampled[0]
        curve = {
            steps: fronts.at(way, painter, judge)
            for steps, painter in along(study, fronts, method, value).items()
        }
        curves.setdefault(settings["objective"], []).append((method, curve))
    if not {"cpo", "cpo-s"} <= curves.keys():
        return
    level, took = min((v, steps) for _, one in curves["cpo"] for steps, v in one.items())
    for name in dict.fromkeys(name for name, _ in curves["cpo-s"]):
        own = [one for method, one in curves["cpo-s"] if method == name]
        there = [numbers.first_below(one, level) for one in own]
        fewest = min((steps for steps in there if steps is not None), default=None)
        figures = f"L_CPO's best is {level:.2f}, after {took} steps; {name} is there "
        yield Claim(
            f"{name} is at L_CPO's best level in at most a fifth of its steps",
            HOLDS if fewest is not None and _FASTER * fewest <= took else NOT,
            figures + ("never" if fewest is None else f"after at most {fewest}"),
        )


def unstable(study: StudyParams) -> list[tuple[Sampled, str]]:
    """Return how L_CPO's trainings, which are not stabilised, are sampled, and their names."""
    return [
        (study.methods[method].sampled[0], name)
        for name, (method, _) in study.trainings.items()
        if study.methods[method].objective["objective"] == "cpo"
    ]


def _collapse(study: StudyParams, fronts: Fronts) -> Iterator[Claim]:
    """L_CPO without stabilisation ends worse than the base, by FID, at one of its strengths."""
    ends = {name: fronts.at(way, name, "fid") for way, name in unstable(study)}
    if ends:
        known = fronts.at(fronts.known, "base", "fid")
        figures = ", ".join(f"{name} {value:.1f}" for name, value in ends.items())
        yield Claim(
            "L_CPO collapses at one of its strengths: it ends with a higher FID than the base",
            HOLDS if max(ends.values()) > known else NOT,
            f"base {known:.1f}, {figures}",
        )


def _diversity(entrant: Entrant, training: str, study: StudyParams, results: Results) -> Claim:
    """Against test paintings without negatives, as many of both."""
    run = results.runs[entrant.sampled][study.seeds[0]]
    clean = run.real[run.clean]
    count = min(len(clean), len(run.captions))
    if count < 2:
        return Claim(f"{entrant.name} is as diverse as clean paintings", OPEN, "there are none")
    ours, theirs = (vendi.vendi(one[:count]) for one in (run.features[training], clean))
    return Claim(
        f"{entrant.name} is no less diverse than test paintings without negatives",
        HOLDS if ours >= theirs else NOT,
        f"Vendi {ours:.1f} against {theirs:.1f}, of {count} pictures each",
    )


def by_volume(study: StudyParams, results: Results) -> dict[float, str]:
    """Return the kinds of the experiments by the share of the training part that they saw."""
    kinds = {share: design.volume_kind(share) for share in study.volumes}
    kinds[1.0] = design.proposed(study)[0].sampled
    return {share: kind for share, kind in sorted(kinds.items()) if kind in results.runs}


def _data(
    study: StudyParams, chosen: Mapping[Entrant, str], results: Results
) -> Iterator[Claim]:
    kinds = by_volume(study, results)
    if len(kinds) < 2:
        return
    own = design.proposed(study)[0]
    least = min(kinds)
    apart = {
        judge: results.difference(
            (kinds[1.0], chosen[own]),
            (kinds[least], design.at_share(chosen[own], least)),
            judge,
        )
        for judge in results.judges()
    }
    yield Claim(
        f"more annotated data helps {own.name}, each picture being seen as often",
        verdict([v.high < 0 for v in apart.values()], [v.low > 0 for v in apart.values()]),
        f"#A_neg with all less that with {least:.0%}: {_by_judge(apart)}",
    )


def verdict(better: Sequence[bool], worse: Sequence[bool]) -> str:
    """Return what becomes of a claim that all judges have to agree on."""
    if all(better):
        return HOLDS
    return NOT if all(worse) else OPEN


def _by_judge(values: Mapping[str, Interval]) -> str:
    return ", ".join(interval(value) for value in values.values())
