import pytest
import safetensors.torch

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
    assert all(name.startswith("lora_unet_") for name in tensors)


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
