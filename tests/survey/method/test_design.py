from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from survey.method import design
from survey.method.design import Plan

PLAN = Plan(
    painters=["base", "cpo-s", "cpo"],
    prompts=30,
    dimensions=["light", "space", "colour"],
    pairs=11,
    raters=4,
    pairs_each=5,
    checks=2,
    repeats=2,
    seed=7,
)


def asked(sheets):
    """Questions that count: neither a check nor one that comes again."""
    kept = []
    for sheet in sheets:
        seen = set()
        for question in sheet:
            if not question.check and question.swapped not in seen:
                seen.add(question)
                kept.append(question)
    return kept


def test_every_pair_is_seen_by_so_many_people_along_every_dimension():
    questions = asked(design.sheets(PLAN, 0))

    seen = Counter((frozenset([q.left, q.right]), q.dimension) for q in questions)

    assert set(seen.values()) == {4}
    assert len(seen) == 3 * 11 * 3  # pairs of painters, prompts, dimensions
    assert all(q.left.prompt == q.right.prompt and q.left != q.right for q in questions)


def test_with_an_even_number_of_people_each_pair_is_seen_equally_often_either_way():
    seen = Counter(asked(design.sheets(PLAN, 0)))

    assert set(seen.values()) == {2}
    assert {seen[question.swapped] for question in seen} == {2}


def test_nobody_sees_a_pair_on_two_occasions_and_no_sheet_is_longer_than_promised():
    for sheet in design.sheets(PLAN, 1):
        plain = [q for q in sheet[: -PLAN.repeats] if not q.check]
        blocks = [frozenset([q.left, q.right]) for q in plain[:: len(PLAN.dimensions)]]
        assert len(blocks) == len(set(blocks)) <= PLAN.pairs_each
        assert len(sheet) == len(plain) + PLAN.checks + PLAN.repeats


def test_all_dimensions_of_a_pair_come_in_a_row_in_an_order_of_its_own():
    sheets = design.sheets(replace(PLAN, checks=0, repeats=0), 0)
    orders = set()

    for sheet in sheets:
        for start in range(0, len(sheet), 3):
            block = sheet[start : start + 3]
            assert len({(q.left, q.right) for q in block}) == 1
            orders.add(tuple(q.dimension for q in block))

    assert len(orders) == 6


def test_a_check_shows_one_picture_whole_and_ruined_on_either_side():
    checks = [q for sheet in design.sheets(PLAN, 0) for q in sheet if q.check]

    assert (
        len(checks) == 28 * PLAN.checks
    )  # 33 pairs of at most 5: 7 sheets in each of 4 rounds
    assert all(replace(q.left, ruined=False) == replace(q.right, ruined=False) for q in checks)
    ruined_left = sum(q.left.ruined for q in checks)
    assert 20 <= ruined_left <= 36
    assert {q.dimension for q in checks} == set(PLAN.dimensions)
    assert all(not sheet[0].check for sheet in design.sheets(PLAN, 0))


def test_the_last_questions_have_been_asked_before_with_the_sides_swapped():
    for sheet in design.sheets(PLAN, 0):
        early, again = sheet[: -PLAN.repeats], sheet[-PLAN.repeats :]
        assert all(question.swapped in early for question in again)
        assert len(set(again)) == PLAN.repeats


def test_one_seed_gives_one_study_and_groups_differ_in_all_but_the_prompts():
    first, again = design.sheets(PLAN, 0), design.sheets(PLAN, 0)
    other, reseeded = design.sheets(PLAN, 1), design.sheets(replace(PLAN, seed=8), 0)

    def prompts(sheets):
        return {q.left.prompt for q in asked(sheets)}

    assert first == again
    assert first != other
    assert prompts(first) == prompts(other) != prompts(reseeded)


def test_more_pairs_than_prompts_are_refused():
    with pytest.raises(ValueError, match="31 pairs"):
        design.sheets(replace(PLAN, pairs=31), 0)


def test_a_single_short_sheet_still_has_its_checks_and_repeats():
    plan = replace(PLAN, painters=["a", "b"], pairs=1, raters=1, prompts=1, dimensions=["x"])

    (sheet,) = design.sheets(replace(plan, repeats=1), 0)

    assert [q.check for q in sheet].count(True) == 2
    assert len(sheet) == 4


def test_a_ruined_picture_keeps_its_size_and_little_else():
    picture = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)

    ruined = design.ruin(picture, 3)

    assert ruined.shape == picture.shape
    assert ruined.dtype == np.uint8
    assert np.array_equal(ruined, design.ruin(picture, 3))
    cell = ruined[:8, :6].astype(float)  # one of 6 x 6 squares: one colour under noise
    assert cell.std() > 20
    assert abs(cell.mean(axis=(0, 1)) - picture[4, 3]).max() < 40  # clipping pulls inwards
