"""Minimize CPO and CPO-S on a toy: one free prediction between a winner and a loser.

What CPO's logistic reads is linear in the prediction, which moves on as long as it is trained.
CPO-S is a sum of squares: it stops at its fixed point, omega / 2 times the difference of winner
and loser beyond the winner.
"""

import torch

from atelier.objectives.cpo import cpo
from atelier.objectives.cpo_s import cpo_s, fixed_point

OMEGA = 2.0
reference = torch.zeros(1, 1)  # what the base predicts
win = torch.tensor([[0.5]])  # what θ1 predicts with the good attributes in its prompt
lose = torch.tensor([[-0.25]])  # and with the bad ones
same = {"weights": torch.ones(1), "has_loser": torch.tensor([True])}


def losses(policy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return both losses of a prediction."""
    stable = {"kind": "mirror-winner", "omega": OMEGA, "k": None, "dpo_beta": None}
    return {
        "cpo": cpo(policy, reference, win, lose, beta=10, **same),
        "cpo-s": cpo_s(policy, reference, win, lose, **stable, **same),
    }


for name in ("cpo", "cpo-s"):
    policy = reference.clone().requires_grad_()
    print(name)
    for step in range(1, 201):
        (loss,) = losses(policy)[name]
        (gradient,) = torch.autograd.grad(loss, policy)
        policy.data -= 0.2 * gradient
        if step in (1, 10, 50, 200):
            print(f"  step {step:3}: loss {loss.item():6.3f}, prediction {policy.item():6.3f}")
aim = fixed_point(reference, win, lose, kind="mirror-winner", omega=OMEGA, k=None)
print(f"fixed point of cpo-s: {aim.item():.3f}")
