"""Steps on torch's meta device: where a GPU's host would wait for it is counted."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from atelier.models import adapters
from atelier.objectives.dpo import DPO
from atelier.objectives.nft import NFT
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Pairs
from tests.atelier.conftest import objective_params

META = torch.device("meta")
OF_DIFFUSERS = {"chroma": 1}  # waits in a pass of the network itself
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2")


class Waits(TorchDispatchMode):
    """Inside, keeps the names of operations after which the host waits for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        if name == "_to_copy":
            devices = {args[0].device, torch.device(kwargs.get("device") or args[0].device)}
            if len(devices) > 1 and not kwargs.get("non_blocking"):
                self.found.append(name)
        if name in READS and args[0].device == META:
            self.found.append(name)
        return func(*args, **kwargs)


@contextlib.contextmanager
def calls(network):
    made = []
    hook = network.register_forward_pre_hook(lambda *args: made.append(args))
    yield made
    hook.remove()


def objectives():
    return {
        "cpo-s": objective_params("cpo-s"),
        "cpo": objective_params("cpo"),
        "dpo": DPO(objective="dpo", beta=100.0, learning_rate=1e-3),
        "nft": NFT(
            objective="nft", old="base", beta=1.0, clip=5.0, anchor=1e-4, learning_rate=1e-3
        ),
    }


@pytest.mark.parametrize("objective", objectives())
def test_a_step_never_waits_for_the_device_between_its_passes(
    painter, family, corpus, lora, training, objective
):
    if family == "z_image":
        pytest.skip("its network takes a list of prompts without their padding")
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    painter.network.to(META)
    half = len(corpus.latents) // 2
    first = torch.arange(half)
    setup = Setup(
        painter, corpus, training.model_copy(update={"batch_images": 2}), "theta1", "theta",
        0.0, pairs=Pairs(first, first + half, torch.ones(half).long(), torch.ones(half)),
        negatives=torch.arange(len(corpus.latents)),
    )  # fmt: skip
    step = objectives()[objective].step(setup)

    with adapters.learning(painter.network, "theta"):
        step(0, False)  # schedules are copied once
        with calls(painter.network) as passes, Waits() as waits:
            loss, values = step(1, False)

    assert loss.device == META
    assert not values
    assert waits.found == ["_to_copy"] * OF_DIFFUSERS.get(family, 0) * len(passes)


def test_a_wait_is_found():
    with Waits() as waits:
        there = torch.ones(2).to(META)
        torch.ones(2).to(META, non_blocking=True)
        there.to(torch.float16)
        with pytest.raises(NotImplementedError):
            torch.nonzero(there)

    assert waits.found == ["_to_copy", "nonzero"]


def test_the_loop_reads_one_loss_a_step_and_that_of_the_step_before(tmp_path, training):
    training = training.model_copy(
        update={"steps": 6, "report_steps": 10, "checkpoint_steps": 100, "precision": "fp32"}
    )
    weight = torch.nn.Parameter(torch.ones(3))
    read, steps = [], []
    original = loop._State._check

    def step_loss(step, measure, part=loop.WHOLE):
        steps.append(step)
        return weight.square().sum(), {}

    def spy(self, loss, step, *others):
        read.append((step, steps[-1]))
        return original(self, loss, step, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._State, "_check", spy)
        loop.fit(
            {"w": weight}, step_loss, learning_rate=0.1, params=training, folder=tmp_path,
            report=lambda step, values: None,
        )  # fmt: skip

    # Each but the last ones while the next step is under way; a report needs all of them.
    assert read == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 5)]
