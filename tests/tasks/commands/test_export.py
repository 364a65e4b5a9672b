from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, loading
from tasks.commands import export
from tasks.run import paths


@pytest.fixture
def family():
    return "sdxl"


@pytest.fixture
def trained(studio):
    painter = loading.load(studio.model)
    lora = studio.sft.lora.model_copy(update={"targets": ["to_q", "to_v"]})
    adapters.add(painter.network, "theta1", lora, seed=0)
    adapters.save(painter, "theta1", paths.SFT)
    return studio


def test_a_stages_lora_is_written_for_other_programs(trained, tmp_path):
    export.run(trained, "theta1", tmp_path / "out" / "theta1.safetensors")

    tensors = safetensors.torch.load_file(tmp_path / "out" / "theta1.safetensors")
    assert len(tensors) % 3 == 0
    assert all(
        name.startswith(("lora_unet_input_blocks_", "lora_unet_middle_", "lora_unet_output_"))
        for name in tensors
    )


def test_the_header_says_what_the_lora_is(trained, tmp_path):
    file = tmp_path / "theta1.safetensors"

    export.run(trained, "theta1", file)
    first = file.read_bytes()
    export.run(trained, "theta1", file)

    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    assert file.read_bytes() == first
    assert said["ss_network_module"] == "networks.lora"
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("4", "4")
    assert said["ss_sd_model_name"] == "base/starter"
    assert said["ss_training_comment"] == "theta1, made by atelier"
    assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert said["modelspec.prediction_type"] == "v"
    assert said["modelspec.resolution"] == "32x32"


def test_an_export_reads_no_weights_of_the_base(trained, tmp_path):
    for file in Path(trained.model.source).rglob("*.safetensors"):
        file.unlink()

    export.run(trained, "theta1", tmp_path / "theta1.safetensors")

    assert (tmp_path / "theta1.safetensors").is_file()


def test_what_was_exported_is_exported_again_to_the_same_weights(trained, tmp_path):
    export.run(trained, "theta1", tmp_path / "one.safetensors")
    export.run(trained, str(tmp_path / "one.safetensors"), tmp_path / "two.safetensors")

    one, two = (
        safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key])


@pytest.mark.parametrize(
    ("model", "file", "error", "says"),
    [
        ("base", "x.safetensors", ParamsError, "'base' has no LoRA to export"),
        ("theta1", "x.pt", ParamsError, r"x\.pt should end in \.safetensors"),
        ("theta9", "x.safetensors", ParamsError, "'theta9' is unknown"),
        ("cpo-s", "x.safetensors", ArtifactError, "is absent; run `dvc repro cpo`"),
    ],
)
def test_what_cannot_be_exported_is_said(trained, tmp_path, model, file, error, says):
    with pytest.raises(error, match=says):
        export.run(trained, model, tmp_path / file)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_tensors_of_an_export_have_one_precision(trained, tmp_path, dtype):
    export.run(trained, "theta1", tmp_path / "theta1.safetensors", dtype)

    tensors = safetensors.torch.load_file(tmp_path / "theta1.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
