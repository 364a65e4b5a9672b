"""Bad input: what people, models and cameras write, at its worst, ten thousand times."""

import pytest

from tests.faults import fuzz, targets

CASES = {"torn": 300, "twisted": 300, "guided": 400}
MORE = {"pictures": {"torn": 3000, "guided": 500}, "shipped profiles": {"torn": 150}}
LEAST = 10_000
PLAN = [
    (name, engine, MORE.get(name, {}).get(engine, cases))
    for name, target in targets.TARGETS.items()
    for engine, cases in CASES.items()
    if engine != "twisted" or target.value is not None
]


def test_ten_thousand_cases_are_planned():
    assert sum(cases for _, _, cases in PLAN) >= LEAST


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("target", "engine", "cases"), PLAN, ids=[f"{one[0]}-{one[1]}" for one in PLAN]
)
def test_what_is_read_is_taken_whole_or_refused_in_words(
    tmp_path, figure, target, engine, cases
):
    if engine == "guided":
        pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 alone")

    came = fuzz.watched(target, engine, cases, seed=0, folder=tmp_path)

    assert came.cases >= cases * 0.9  # hypothesis ends earlier where it has no more to say
    figure(
        "Bad input",
        f"{target}, {ENGINES[engine]}",
        came.cases,
        f"{came.taken:,} taken, {came.refused:,} refused in words, no traceback; "
        f"at most {came.slowest:.2f} s a case, {came.growth} MB more memory",
    )


ENGINES = {
    "torn": "bytes torn",
    "twisted": "values twisted (hypothesis)",
    "guided": "guided by branches (atheris)",
}
