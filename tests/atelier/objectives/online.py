"""Trainings of objectives that paint in rounds, run whole and killed in the middle."""

import pytest
import torch

from atelier.models import adapters
from atelier.training import loop


class KilledError(Exception):
    pass


def fitted(painter, objective, setup, folder, report=lambda step, values: None):
    with adapters.learning(painter.network, "theta"):
        return loop.fit(
            adapters.weights(painter.network, "theta"),
            objective.step(setup),
            learning_rate=objective.learning_rate,
            params=setup.params,
            folder=folder,
            report=report,
            beside=setup.state,
        )


def goes_on_bit_for_bit(painter, objective, new_setup, folder, killed_after):
    policy = adapters.weights(painter.network, "theta")
    fresh = {name: weight.detach().clone() for name, weight in policy.items()}

    def kill(step, values):
        if step == killed_after:
            raise KilledError

    def again(folder, report=lambda step, values: None):
        for name, weight in policy.items():
            weight.data.copy_(fresh[name])
        setup = new_setup()
        return fitted(painter, objective, setup, folder, report), setup.state

    undisturbed, state = again(folder / "one")
    with pytest.raises(KilledError):
        again(folder / "two", kill)
    resumed, resumed_state = again(folder / "two")

    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
    assert all(torch.equal(resumed_state[name], state[name]) for name in state)
