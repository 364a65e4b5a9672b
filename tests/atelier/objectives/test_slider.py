import torch

from atelier.objectives.slider import slider, target


def four(seed=0):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 4, generator=source, dtype=torch.float64) for _ in range(4)]


def test_a_policy_at_the_target_costs_nothing_and_has_no_gradient():
    _, reference, win, lose = four()
    both = torch.tensor([True, True])
    policy = target(reference, win, lose, eta=3.0, has_loser=both).requires_grad_()

    loss = slider(policy, reference, win, lose, eta=3.0, weights=torch.ones(2), has_loser=both)
    loss.sum().backward()

    torch.testing.assert_close(loss.detach(), torch.zeros_like(loss))
    torch.testing.assert_close(policy.grad, torch.zeros_like(policy))


def test_the_loss_by_hand():
    # target = 1 + 2 (0.5 - 0.25) = 1.5 against 1: 0.25, times the weight 2; the second picture
    # has one pole, so its target is its reference.
    policy, reference = torch.ones(2, 1), torch.ones(2, 1)
    win, lose = torch.full((2, 1), 0.5), torch.full((2, 1), 0.25)

    loss = slider(
        policy, reference, win, lose,
        eta=2.0, weights=torch.tensor([2.0, 1.0]), has_loser=torch.tensor([True, False]),
    )  # fmt: skip

    torch.testing.assert_close(loss, torch.tensor([0.5, 0.0]))


def test_what_the_teacher_says_of_both_poles_alike_is_no_part_of_a_dial():
    _, reference, win, lose = four()
    both = torch.tensor([True, True])
    shift = torch.full_like(win, 0.7)

    torch.testing.assert_close(
        target(reference, win + shift, lose + shift, eta=1.0, has_loser=both),
        target(reference, win, lose, eta=1.0, has_loser=both),
    )


def test_targets_of_two_dials_add_up():
    _, reference, win, lose = four()
    _, _, second_win, second_lose = four(seed=1)
    both = torch.tensor([True, True])

    def moved(one, other):
        return target(reference, one, other, eta=2.0, has_loser=both) - reference

    torch.testing.assert_close(
        moved(win, lose) + moved(second_win, second_lose),
        moved(win + second_win, lose + second_lose),
    )
