import pytest
import torch

from atelier.models import adapters
from atelier.objectives.objective import Setup
from tests.atelier.conftest import objective_params


@pytest.fixture
def pair(painter, lora):
    """θ1 that tells prompts apart, and a fresh θ."""
    adapters.add(painter.network, "theta1", lora, seed=1)
    generator = torch.Generator().manual_seed(4)
    for parameter in adapters.weights(painter.network, "theta1").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    adapters.add(painter.network, "theta", lora, seed=2)
    return painter


STABLE = objective_params("cpo-s", omega=1.0, learning_rate=0.01)


LOGISTIC = objective_params("cpo", beta=100, learning_rate=0.01)


def aligned(painter, corpus, objective, training):
    return objective.step(Setup(painter, corpus, training, "theta1", "theta", 0))


def four(seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, batch, 4, 8, 8, generator=generator, dtype=torch.float64)


def ones(batch=3):
    return torch.ones(batch, dtype=torch.float64), torch.ones(batch, dtype=torch.bool)


def scalar(value):
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def errors(seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, batch, generator=generator, dtype=torch.float64)


def number(value):
    return torch.tensor([value], dtype=torch.float64)
