import pytest

from atelier.reports.study import design
from atelier.reports.study.results import Found


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ((2, 15), (1, 19), 2),
        ((2, 15), (1, 21), 1),  # the second has worse pictures than the base
        ((2, 25), (1, 21), 2),  # none is as good as the base
        ((1, 15), (1, 15), 1),
    ],
)
def test_the_best_sound_configuration_is_chosen(study, first, second, chosen):
    measured = {"base": (4, 20), "cpo-s-1": first, "cpo-s-2": second}
    tuned = Found(
        {k: {"negatives": n, "fid": f} for k, (n, f) in measured.items()}, [], [], {}, {}
    )

    assert design.choose("cpo-s", study, tuned) == chosen


def test_the_main_comparison_is_run_first_with_every_seed(study):
    runs = design.final_runs(study, {"cpo-s": 2, "cpo": 1, "dpo": 1})

    assert [one.name for one in runs] == [
        f"{kind}-{seed}"
        for kind in (
            "methods", "guided", "guided-dropout", "steps2", "sweep", "variants", "volume50"
        )
        for seed in (0, 1)
    ]  # fmt: skip
    assert runs[0].changes["cpo.objectives"]["cpo-s"]["omega"] == 10
    assert runs[0].changes["cpo.featured"] == "cpo-s"
    assert {one.changes["cpo.training.seed"] for one in runs} == {0, 1}
    assert all("sft.training.seed" not in one.changes for one in runs)
    sweep = next(one for one in runs if one.name == "sweep-0").changes["cpo.objectives"]
    assert {name: entry["omega"] for name, entry in sweep.items()} == {
        "omega-2": 2, "omega-5": 5, "omega-10": 10,
    }  # fmt: skip
