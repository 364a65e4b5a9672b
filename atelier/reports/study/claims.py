"""Claims of the paper, and what a study's results say to each."""

import statistics
from collections.abc import Iterator

from atelier.config.study import StudyParams
from atelier.reports.study import numbers
from atelier.reports.study.design import MAIN, steps_kind, swept, volume_kind
from atelier.reports.study.results import Results
from atelier.reports.study.tables import Row, interval, spread

_REPRODUCED, _NOT, _PENDING = "reproduced", "**not reproduced**", "not run yet"
_UNTESTABLE = (
    ("experts prefer CPO (84.1% to 15.9% on FLUX)", "it takes people"),
    (
        "best PickScore, HPSv2, ImageReward, LAION-Aesthetic",
        "these judge photographs and paintings of hundreds of pixels, not drawings of the "
        "starter",
    ),
    ("about 10 GPU-hours an epoch on SDXL", "no model of that size was trained"),
)


def rows(study: StudyParams, results: Results) -> list[Row]:
    """Return a row for each claim: the claim, what became of it here, and the figure."""
    return [
        *_of_methods(study, results),
        _of_npo(study, results),
        _of_data(study, results),
        _of_strength(study, results),
        _of_speed(study, results),
        *([claim, "not testable here", why] for claim, why in _UNTESTABLE),
    ]


def by_steps(study: StudyParams, results: Results, name: str) -> dict[int, float]:
    """Return #A_neg of a method by the steps of its trainings."""
    assert study.steps is not None
    kinds = {steps: steps_kind(steps) for steps in study.steps.values}
    return {
        steps: results.mean(kind, name, results.judges(kind)[0]).estimate
        for steps, kind in sorted((kinds | {_whole(results): MAIN}).items())
        if kind in results.runs
    }


def by_volume(study: StudyParams, results: Results) -> dict[float, str]:
    """Return the kinds of the experiments by the share of the training part that they saw."""
    kinds = {share: volume_kind(share) for share in study.volumes} | {1.0: MAIN}
    return {share: kind for share, kind in sorted(kinds.items()) if kind in results.runs}


def _verdict(reproduced: bool) -> str:
    return _REPRODUCED if reproduced else _NOT


def _whole(results: Results) -> int:
    """Steps of the main comparison's trainings."""
    trainings = results.trained(MAIN).values()
    return int(max(runs[0]["curve"]["step"][-1] for runs in trainings))


def _of_methods(study: StudyParams, results: Results) -> Iterator[Row]:
    own = study.proposed
    if MAIN not in results.runs:
        yield [f"{own} lowers #A_neg more than every other method", _PENDING, ""]
        return
    others = ["base", "theta1", *(name for name in study.methods if name != own)]
    for judge in filter(None, results.judges(MAIN)):
        for other in others:
            less = results.difference((MAIN, own), (MAIN, other), judge)
            claim = f"{own} has fewer negatives than {other} (`{judge}`)"
            yield [claim, _verdict(less.high < 0), f"{interval(less)} paired"]
    yield from _of_quality(own, results)


def _of_quality(own: str, results: Results) -> Iterator[Row]:
    painters = [name for name in results.painters(MAIN) if name != "theta1+pos"]
    fids = {name: results.metric(MAIN, name, "fid") for name in painters}
    fids = {name: values for name, values in fids.items() if values}
    if own not in fids:
        return
    best = min(fids, key=lambda name: statistics.mean(fids[name]))
    figure = f"{own} {spread(fids[own])}; lowest: {best} {spread(fids[best])}"
    yield [f"{own} keeps quality best (lowest FID)", _verdict(best == own), figure]
    for other in ("base", "theta1", "dpo"):
        if other in fids:
            worse = min(fids[own]) > max(fids[other])
            better = max(fids[own]) <= min(fids[other])
            verdict = _verdict(better) if better or worse else "undecided"
            figure = f"{spread(fids[own])} against {spread(fids[other])}"
            yield [f"{own} has no worse FID than {other}", verdict, figure]


def _of_npo(study: StudyParams, results: Results) -> Row:
    claim, with_npo = (
        f"NPO beside {study.proposed} lowers #A_neg further",
        f"{study.proposed}+npo",
    )
    if "guided" not in results.runs or with_npo not in results.painters("guided"):
        return [claim, _PENDING, ""]
    less = results.difference(("guided", with_npo), ("guided", study.proposed))
    return [claim, _verdict(less.high < 0), f"{interval(less)} paired"]


def _of_data(study: StudyParams, results: Results) -> Row:
    claim, kinds = "more annotated data helps", by_volume(study, results)
    if len(kinds) < 2:
        return [claim, _PENDING, ""]
    least, most = min(kinds), max(kinds)
    own = study.proposed
    less = results.difference((kinds[most], own), (kinds[least], own))
    figure = f"{most:.0%} less {least:.0%} of the data: {interval(less)}"
    return [claim, _verdict(less.high < 0), figure]


def _of_strength(study: StudyParams, results: Results) -> Row:
    claim = "ω has a sweet spot"
    if "sweep" not in results.runs or study.sweep is None:
        return [claim, _PENDING, ""]
    judge = results.judges("sweep")[0]
    values = {
        float(value): results.mean("sweep", name, judge).estimate
        for name, value in swept(study).items()
    }
    figure = ", ".join(f"{value:g}: {mean:.2f}" for value, mean in values.items())
    return [claim, _verdict(numbers.sweet_spot(values)), figure]


def _of_speed(study: StudyParams, results: Results) -> Row:
    claim, own = "stabilised CPO converges several times faster than L_CPO", study.proposed
    if study.steps is None or MAIN not in results.runs or "cpo" not in study.steps.methods:
        return [claim, _PENDING, ""]
    curves = {name: by_steps(study, results, name) for name in (own, "cpo")}
    if any(len(curve) < 2 for curve in curves.values()):
        return [claim, _PENDING, ""]
    whole, level = _whole(results), curves["cpo"][max(curves["cpo"])]
    fewest = numbers.first_below(curves[own], level)
    takes = "more" if fewest is None else f"at most {fewest}"
    figure = (
        f"to L_CPO's {level:.2f} after {whole} steps it takes {own} {takes}; half of L_CPO's "
        "steps count as faster"
    )
    return [claim, _verdict(fewest is not None and 2 * fewest <= whole), figure]
