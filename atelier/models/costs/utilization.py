"""Model FLOPs utilization (MFU): which share of a GPU's peak a training's passes reach.

MFU = FLOPs that the passes of an image need · images a second / the data sheet's peak of one
device in bfloat16, without sparsity, times the processes (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B). What is needed is counted by torch on its meta device
(``models.costs.pass_cost``):

* of the policy the pass and the way back through it. Frozen weights get no gradient of their
  own, so that with a LoRA going back costs about as much as the pass, not twice;
* of θ1 and the reference the passes that the objective asks for, without gradient;
* passes that gradient checkpointing makes again are not needed, and not counted; nor are those
  that the drift monitor and grids make now and then, whose time is in the images a second.
"""

from dataclasses import dataclass
from functools import cached_property

from atelier.config.model import ModelParams
from atelier.config.training import Learns, Training

# FLOP/s of products in bfloat16 that the data sheets give, by what torch calls the device; the
# longer name first.
_PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class Utilization:
    """What a training's passes need.

    Attributes:
        model: The base.
        learns: What learns on it.
        training: In which precision.
        policy: Passes of an image in a step, with gradient.
        frozen: Passes without.
    """

    model: ModelParams
    learns: Learns
    training: Training
    policy: float
    frozen: float

    @cached_property
    def flops(self) -> float:
        """Return the FLOPs that an image needs; counting them takes seconds."""
        from atelier.models.costs import pass_cost

        half = self.training.precision != "fp32"
        costs = pass_cost.count(
            self.model, self.learns, half=half, gradient_checkpointing=False
        )
        return self.policy * costs.policy + self.frozen * costs.frozen

    def values(
        self, images_per_second: float, device: str | None, devices: int
    ) -> dict[str, float]:
        """Return TFLOP/s and, where the device's peak is known, MFU; nothing on a CPU.

        Args:
            images_per_second: Of all processes.
            device: What torch calls the GPU; None: there is none.
            devices: How many there are, one a process.
        """
        if device is None:
            return {}
        rate = self.flops * images_per_second / devices
        found = {"tflops": rate / 1e12}
        if (peak := peak_of(device)) is not None:
            found["mfu"] = rate / peak
        return found


def peak_of(device: str) -> float | None:
    """Return the data sheet's FLOP/s in bfloat16; None of a device that is not listed."""
    return next((peak for name, peak in _PEAKS.items() if name in device), None)


def gpu() -> str | None:
    """Return what torch calls the device of this process; None on a CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
