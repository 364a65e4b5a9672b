"""Design of a study: its experiments, its entrants, and the choice of each one's strength.

An *entrant* is a method in one way of sampling, alone (without guidance) or guided. Its points
are the strengths at which it was trained, and the milestones on the way there. Each is a
painter: ``<method>-<strength>``, or with the steps of a milestone, ``<method>-<strength>@12``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atelier.config.study import SAMPLED, Sampled, StudyParams
from atelier.reports.study.results import Found

VALIDATION = "validation"


@dataclass(frozen=True)
class Experiment:
    """One run of the pipeline with changed settings.

    Attributes:
        name: Of its folder: the kind of experiment, then the seed.
        changes: Settings of the profile, by dotted names.
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Entrant:
    """A method in one way of sampling."""

    method: str
    sampled: Sampled

    @property
    def name(self) -> str:
        """Return its name in tables."""
        return self.method if self.sampled == "alone" else f"{self.method}, guided"

    @property
    def price(self) -> int:
        """Return how many passes through the network a step of sampling takes."""
        return 1 if self.sampled == "alone" else 2


def entrants(study: StudyParams) -> list[Entrant]:
    """Return what is compared, in the order of the file."""
    return [
        Entrant(name, sampled)
        for name, method in study.methods.items()
        for sampled in method.sampled
    ]


def trainings(study: StudyParams, entrant: Entrant) -> dict[str, Any]:
    """Return the strengths of an entrant, by the names of their trainings."""
    return {
        name: value
        for name, (method, value) in study.trainings.items()
        if method == entrant.method
    }


def front(study: StudyParams, entrant: Entrant) -> list[str]:
    """Return the painters of an entrant's front: its trainings, and their milestones."""
    milestones = study.methods[entrant.method].objective.get("milestones", ())
    return [
        painter
        for name in trainings(study, entrant)
        for painter in (name, *(f"{name}@{steps}" for steps in milestones))
    ]


def training(painter: str) -> str:
    """Return the training of a painter, which may be one of its milestones."""
    return painter.partition("@")[0]


def milestone(painter: str) -> int | None:
    """Return after how many steps a painter's weights were kept; None: after all."""
    steps = painter.partition("@")[2]
    return int(steps) if steps else None


def first_runs(study: StudyParams) -> list[Experiment]:
    """Return the runs of every strength with the first seed: validation, then test.

    The trainings are the same in both, and θ is taken from the first. Guided runs follow with
    their own trainings; what is sampled both ways is trained once.
    """
    return list(_first_runs(study))


def _first_runs(study: StudyParams) -> Iterator[Experiment]:
    seed = study.seeds[0]
    part = {"generate.part": "validation", "generate.prompts": study.tuning_prompts}
    for sampled in SAMPLED:
        names = [
            name
            for name, (method, _) in study.trainings.items()
            if sampled in study.methods[method].sampled
        ]
        if names:
            changes = _changes(study, names, sampled, seed)
            yield Experiment(f"{VALIDATION}-{sampled}-{seed}", changes | part)
            yield Experiment(f"{sampled}-{seed}", changes)


def choose(study: StudyParams, entrant: Entrant, found: Mapping[str, Found]) -> str:
    """Return the point of an entrant's front that did best on validation.

    The fewest negatives by the annotator among those whose FID is at most ``sound`` times that
    of θ1, sampled alone; where there is none, the lowest FID. Of equals, the first.
    """
    seed = study.seeds[0]
    runs = {way: found.get(f"{VALIDATION}-{way}-{seed}") for way in SAMPLED}
    own, alone = runs[entrant.sampled], runs["alone"] or runs["guided"]
    assert own is not None  # a choice is made after these have run
    assert alone is not None
    rows, most = own.metrics, study.sound * alone.metrics["theta1"]["fid"]
    names = front(study, entrant)
    sound = [name for name in names if rows[name]["fid"] <= most]
    if sound:
        return min(sound, key=lambda name: rows[name]["negatives"])
    return min(names, key=lambda name: rows[name]["fid"])


def later_runs(
    study: StudyParams, chosen: Mapping[Entrant, str], steps: Mapping[str, int]
) -> list[Experiment]:
    """Return the runs of what was chosen: with the other seeds, and with less data.

    Args:
        study: What params/NAME.yaml holds.
        chosen: The painter of each entrant.
        steps: Of θ1 and of θ, by the settings' dotted names. With a share of the data they are
            the same share: each picture is seen as often.
    """
    return [*_repeats(study, chosen), *_volumes(study, chosen, steps)]


def _repeats(study: StudyParams, chosen: Mapping[Entrant, str]) -> Iterator[Experiment]:
    for seed in study.seeds[1:]:
        for sampled in SAMPLED:
            names = [
                name
                for one, name in chosen.items()
                if one.sampled == sampled and one.method in study.repeated
            ]
            if names:
                yield Experiment(f"{sampled}-{seed}", _again(study, names, sampled, seed))


def _volumes(
    study: StudyParams, chosen: Mapping[Entrant, str], steps: Mapping[str, int]
) -> Iterator[Experiment]:
    own, seed = proposed(study)[0], study.seeds[0]
    for share in study.volumes:
        painter = at_share(chosen[own], share)
        fewer = {name: max(1, round(share * count)) for name, count in steps.items()}
        more = {"split.train_share": share, **fewer}
        changes = _again(study, [painter], own.sampled, seed)
        yield Experiment(f"{volume_kind(share)}-{seed}", changes | more)


def at_share(painter: str, share: float) -> str:
    """Return a painter's name in a run with a share of the steps, of its milestone as well."""
    steps = milestone(painter)
    if steps is None:
        return painter
    return f"{training(painter)}@{max(1, round(share * steps))}"


def proposed(study: StudyParams) -> list[Entrant]:
    """Return the entrants whose claims are checked, in the order in which they are named."""
    return [
        Entrant(name, sampled)
        for name in study.proposed
        for sampled in study.methods[name].sampled
    ]


def volume_kind(share: float) -> str:
    """Return the kind of the experiments with a share of the training part."""
    return f"volume{round(100 * share)}"


def _again(
    study: StudyParams, painters: list[str], sampled: Sampled, seed: int
) -> dict[str, Any]:
    """Changes of a run that trains what was chosen; it keeps no other milestones."""
    names = list(dict.fromkeys(training(one) for one in painters))
    changes = _changes(study, names, sampled, seed)
    for name, objective in changes["cpo.objectives"].items():
        objective.pop("milestones", None)
        kept = [milestone(one) for one in painters if training(one) == name]
        if kept != [None]:
            objective["milestones"] = [steps for steps in kept if steps is not None]
    return changes


def _changes(
    study: StudyParams, names: list[str], sampled: Sampled, seed: int
) -> dict[str, Any]:
    """Objectives, guidance and seed of a run; θ1, who teaches all, keeps its own seed."""
    objectives = {}
    for name in names:
        method, value = study.trainings[name]
        objectives[name] = study.methods[method].at(value)
    return {
        "cpo.objectives": objectives,
        "cpo.featured": names[0],
        "cpo.training.seed": seed,
        "generate.seed": seed,
        "generate.guidance": study.guidance if sampled == "guided" else 1.0,
    }
