import dataclasses

import pytest

from atelier.reports.study import design
from atelier.reports.study.design import Entrant

STEPS = {"sft.training.steps": 300, "cpo.training.steps": 60}


def test_an_entrant_is_a_method_in_one_way_of_sampling(study):
    assert [one.name for one in design.entrants(study)] == [
        "inside", "cpo", "dpo", "dpo, guided"
    ]  # fmt: skip
    assert [one.price for one in design.entrants(study)] == [1, 1, 1, 2]


def test_a_front_has_every_strength_and_milestone(study):
    assert design.front(study, Entrant("inside", "alone")) == [
        "inside-0", "inside-0@1", "inside-0@2", "inside-2-5", "inside-2-5@1", "inside-2-5@2"
    ]  # fmt: skip
    assert design.front(study, Entrant("dpo", "guided")) == ["dpo-30", "dpo-100"]


def test_the_first_seed_trains_every_strength_and_is_tuned_as_it_is_sampled(study):
    runs = design.first_runs(study)

    assert [one.name for one in runs] == [
        "validation-alone-0", "alone-0", "validation-guided-0", "guided-0"
    ]  # fmt: skip
    changes = {one.name: one.changes for one in runs}
    assert list(changes["alone-0"]["cpo.objectives"]) == [
        "inside-0", "inside-2-5", "cpo-100", "dpo-30", "dpo-100"
    ]  # fmt: skip
    assert list(changes["guided-0"]["cpo.objectives"]) == ["dpo-30", "dpo-100"]
    for way, guidance in (("alone", 1.0), ("guided", 2.0)):
        test, tuned = changes[f"{way}-0"], changes[f"validation-{way}-0"]
        assert test["generate.guidance"] == tuned["generate.guidance"] == guidance
        assert test["cpo.objectives"] == tuned["cpo.objectives"]  # one training for both
        assert (tuned["generate.part"], tuned["generate.prompts"]) == ("validation", 2)
    # A training that is sampled both ways is the same training.
    for name in ("dpo-30", "dpo-100"):
        both = [changes[f"{way}-0"]["cpo.objectives"][name] for way in ("alone", "guided")]
        assert both[0] == both[1]
    assert all("sft.training.seed" not in one.changes for one in runs)


def test_what_was_chosen_is_trained_with_other_seeds_and_with_less_data(study):
    chosen = {one: next(iter(design.trainings(study, one))) for one in design.entrants(study)}
    chosen[Entrant("inside", "alone")] = "inside-2-5"

    runs = {one.name: one.changes for one in design.later_runs(study, chosen, STEPS)}

    assert list(runs) == ["alone-1", "volume50-0"]
    assert runs["alone-1"]["cpo.training.seed"] == 1
    assert runs["alone-1"]["cpo.objectives"]["inside-2-5"]["omega"] == 2.5
    assert "milestones" not in runs["alone-1"]["cpo.objectives"]["inside-2-5"]
    volume = runs["volume50-0"]
    assert volume["split.train_share"] == 0.5
    assert volume["sft.training.steps"] == 150  # in equal epochs
    assert volume["cpo.training.steps"] == 30


def test_a_chosen_milestone_is_kept_by_the_runs_that_follow(study):
    chosen = {one: next(iter(design.trainings(study, one))) for one in design.entrants(study)}
    chosen[Entrant("inside", "alone")] = "inside-2-5@2"

    runs = {one.name: one.changes for one in design.later_runs(study, chosen, STEPS)}

    assert list(runs["alone-1"]["cpo.objectives"]) == ["inside-2-5"]
    assert runs["alone-1"]["cpo.objectives"]["inside-2-5"]["milestones"] == [2]
    assert runs["alone-1"]["cpo.featured"] == "inside-2-5"
    # With half of the steps its place is at half of them.
    assert runs["volume50-0"]["cpo.objectives"]["inside-2-5"]["milestones"] == [1]
    assert design.at_share("inside-2-5@2", 0.5) == "inside-2-5@1"
    assert design.at_share("inside-2-5", 0.5) == "inside-2-5"


@pytest.mark.parametrize(
    ("first", "second", "halfway", "best"),
    [
        ((2, 12), (1, 12.5), (1, 40), "inside-2-5"),
        ((2, 12), (1, 12.6), (1, 40), "inside-0"),  # the second is beyond 1.25 times θ1's 10
        ((1, 30), (2, 20), (1, 40), "inside-2-5"),  # none is sound: the lowest FID
        ((1, 12), (1, 12), (1, 40), "inside-0"),
        ((4, 12), (4, 12), (3, 12), "inside-0@2"),  # on the way it was better
    ],
)
def test_the_fewest_negatives_of_the_sound_points_are_chosen(
    study, experiments, found, first, second, halfway, best
):
    tuned = found(experiments[0])
    measured = {"theta1": (4, 10), "inside-0": first, "inside-2-5": second}
    measured |= {"inside-0@2": halfway}
    measured |= dict.fromkeys(("inside-0@1", "inside-2-5@1", "inside-2-5@2"), (9, 50))
    rows = {name: {"negatives": n, "fid": f} for name, (n, f) in measured.items()}
    tuned = dataclasses.replace(tuned, metrics=rows)

    named = design.choose(study, Entrant("inside", "alone"), {"validation-alone-0": tuned})

    assert named == best
