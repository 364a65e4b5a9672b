import pytest
import torch

from atelier.metrics import conflicts


def test_cosines_by_hand():
    bad = torch.zeros(3, 1, 2)
    good = torch.tensor([[[1.0, 0.0]], [[-2.0, 0.0]], [[3.0, 3.0]]])

    found = conflicts.cosines(good, bad)

    half = 2**-0.5
    expected = torch.tensor([[1, -1, half], [-1, 1, -half], [half, -half, 1]])
    torch.testing.assert_close(found, expected.double())


def test_only_the_difference_of_the_poles_counts():
    generator = torch.Generator().manual_seed(0)
    good, bad, both = torch.randn(3, 4, 2, 8, 8, generator=generator)

    torch.testing.assert_close(
        conflicts.cosines(good + both, bad + both),
        conflicts.cosines(good, bad),
        atol=1e-5,
        rtol=0,
    )


def test_a_criterion_without_effect_stands_at_a_right_angle():
    good = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    bad = torch.tensor([[1.0, 2.0], [0.0, 0.0]])

    assert conflicts.cosines(good, bad)[0].tolist() == [0, 0]


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ"):
        conflicts.cosines(torch.zeros(2, 3), torch.zeros(1, 3))


def test_pairs_that_met_often_enough_are_listed_by_how_much_they_fight():
    found = [
        {("a", "b"): -0.5, ("a", "c"): 0.4},
        {("a", "b"): -0.3, ("a", "c"): -0.2, ("b", "c"): 0.9},
        {("a", "b"): -0.4, ("a", "c"): 0.4},
    ]

    rows = conflicts.met(found, ["x", "y", "z"], least=2)

    assert [row.pair for row in rows] == [("a", "b"), ("a", "c")]
    assert rows[0].cosine.estimate == pytest.approx(-0.4)
    assert [row.fights for row in rows] == [True, False]


def test_the_heat_map_draws_every_pair_that_met():
    rows = conflicts.met([{("a", "b"): -0.5}] * 5, "vwxyz", least=5)

    figure = conflicts.heat_map(rows, ["a", "b", "c"])

    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["-0.50", "-0.50"]
