import json

import pytest

from atelier.errors import ArtifactError
from atelier.models.costs import measured_steps, pace
from atelier.models.costs.measured_steps import Measured, Step
from atelier.models.costs.pace import Trained
from tests.atelier.conftest import toy_model, training_params

CASE = {
    "family": "flux", "objective": "cpo-s", "policy_passes": 1, "frozen_passes": 2, "flag": "",
    "batch_images": 8, "images_at_once": None, "pixels": 32, "rank": 4, "precision": "fp32",
    "optimizer": "adamw", "gradient_checkpointing": False, "compile": False,
    "attention": None, "quantise": None, "steps": 10, "seconds_per_image": 0.5,
    "peak_memory_gb": 40.0, "tflops": 400.0, "mfu": 0.4, "matrix_share": 0.5, "failure": None,
}  # fmt: skip
CPO_S = Trained("cpo-s", 1, 2, 200e12)
DPO = Trained("dpo", 1, 1, 100e12)


def measured(*cases):
    steps = tuple(Step.model_validate(CASE | case) for case in cases)
    return Measured(device="A Device", torch="2", size="full", matrix_tflops=600.0, steps=steps)


def of(trained, found, **training):
    return pace.of(trained, toy_model(), training_params(**training), found)


def test_without_figures_it_is_a_share_of_an_h100():
    found = of([CPO_S, DPO], None)

    assert found.device == "H100"
    assert found.seconds == pytest.approx(300e12 / (0.45 * 989e12))
    assert found.how.startswith("computed: 300 TFLOP an image of 2 objectives, at 445 TFLOP/s")
    assert not found.measured


def test_a_training_that_was_measured_takes_what_was_measured():
    found = of([CPO_S], measured({}))

    assert (found.device, found.seconds) == ("A Device", 0.5)
    assert found.how == "measured on A Device: cpo-s 0.5 s an image (8 in a step)"


def test_one_that_was_not_is_computed_at_the_rate_that_was():
    found = of([CPO_S, DPO], measured({}))

    assert found.seconds == pytest.approx(0.5 + 100e12 / 400e12)
    assert "computed: 100 TFLOP an image, at the 400 TFLOP/s there" in found.how
    assert [one.objective for one in found.measured] == ["cpo-s"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": 64}, {"optimizer": "adamw-fused"}, {"gradient_checkpointing": True},
        {"compile": True}, {"attention": "flash"}, {"quantise": "fp8"}, {"precision": "bf16"},
        {"frozen_passes": 3}, {"objective": "cpo"},
    ],
)  # fmt: skip
def test_a_case_that_differs_in_what_decides_its_time_gives_its_rate_alone(changes):
    found = of([CPO_S], measured(changes))

    assert not found.measured
    assert found.seconds == pytest.approx(200e12 / 400e12)
    assert "at the 400 TFLOP/s measured on A Device" in found.how


def test_of_another_family_nothing_is_taken():
    assert of([CPO_S], measured({"family": "sdxl"})).device == "H100"


def test_of_several_batches_the_nearest_is_taken():
    found = measured({"seconds_per_image": 2.0, "batch_images": 1}, {}, {"images_at_once": 2})

    assert of([CPO_S], found, batch_images=7, images_at_once=None).seconds == 0.5
    assert of([CPO_S], found, batch_images=7, images_at_once=1).seconds == 2.0


def test_what_failed_is_not_measured():
    nothing = {"seconds_per_image": None, "tflops": None, "failure": "out of memory"}

    assert of([CPO_S], measured(nothing)).device == "H100"


def test_figures_are_read_as_they_were_written(tmp_path):
    file = tmp_path / "gpu-step.json"
    file.write_text(measured({}).model_dump_json())

    assert measured_steps.read(file) == measured({})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "holds no figures of `python -m benchmarks.gpu_step`"),
        (json.dumps(measured().model_dump() | {"size": "toy"}), "figures of toys"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, message):
    file = tmp_path / "gpu-step.json"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ArtifactError, match=message):
        measured_steps.read(file)
