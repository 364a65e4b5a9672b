import pytest

from atelier.models.costs import pass_cost, utilization
from atelier.models.costs.utilization import Utilization
from tasks.training import trainer

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def needed(studio):
    training = studio.cpo.training.model_copy(update={"gradient_checkpointing": True})
    return Utilization(studio.model, studio.cpo.lora, training, policy=1, frozen=2)


def test_passes_made_again_are_not_counted(needed, studio):
    def cost(again):
        return pass_cost.count(
            studio.model, studio.cpo.lora, half=False, gradient_checkpointing=again
        )

    assert needed.flops == cost(False).policy + 2 * cost(False).frozen
    assert cost(True).policy > cost(False).policy


def test_mfu_by_hand(needed):
    vars(needed)["flops"] = 3e12

    # 3 TFLOP an image, 100 images a second on two devices: 150 TFLOP/s each
    found = needed.values(100.0, H100, 2)

    assert found == pytest.approx({"tflops": 150, "mfu": 150 / 989})
    assert needed.values(100.0, "Some other GPU", 1) == pytest.approx({"tflops": 300})
    assert needed.values(100.0, None, 1) == {}


def test_a_gpus_training_logs_it_and_a_cpus_does_not(needed, monkeypatch):
    vars(needed)["flops"] = 1e12
    pace = trainer._Pace(4, needed, 1)
    pace.values(0)
    assert "mfu" not in pace.values(2)

    monkeypatch.setattr(utilization, "gpu", lambda: H100)

    assert pace.values(4)["mfu"] > 0
