"""A training's start from a LoRA of another trainer: the same picture, or refused."""

import json

import pytest
import safetensors.torch
import torch

from atelier.errors import ArtifactError
from atelier.models import adapters, lora_start
from tests.atelier.conftest import lora_params

RANK, ALPHA = 3, 6.0


@pytest.fixture
def theirs(painter, tmp_path):
    """A function that writes a LoRA of kohya's kind on the layers that it chooses."""

    def write(chosen=lambda name: True, rank=RANK, **more):
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for name, module in painter.network.named_modules():
            if isinstance(module, torch.nn.Linear) and chosen(name) and ".lora_" not in name:
                flat = f"lora_unet_{name.replace('.base_layer', '').replace('.', '_')}"
                down = torch.randn(rank, module.in_features, generator=generator) * 0.2
                up = torch.randn(module.out_features, rank, generator=generator) * 0.2
                tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
                tensors[f"{flat}.alpha"] = torch.tensor(ALPHA)
        file = tmp_path / "theirs.safetensors"
        safetensors.torch.save_file(tensors | more, file, {"format": "pt"})
        return file

    return write


def predicted(painter, name):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, *painter.latent_shape(32), generator=generator)
    with adapters.use(painter.network, name):
        return painter.predict(latents, torch.tensor([0.5]), painter.encode_texts(["a sea"]))


def added(painter, **shape):
    adapters.add(painter.network, "theta", lora_params(**shape), seed=0)


SHAPES = [
    {"rank": 3, "alpha": 3},
    {"rank": 5, "alpha": 0.5},
    {"rank": 4, "alpha": 6, "rslora": True},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_start_predicts_what_the_lora_does_at_every_rank_that_holds_it(
    float64, painter, theirs, shape
):
    file = theirs()
    added(painter, **shape)

    lora_start.begin(painter, "theta", file, "sft")

    adapters.attach(painter, "theirs", file)
    expected = predicted(painter, "theirs")
    torch.testing.assert_close(predicted(painter, "theta"), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predicted(painter, None), expected, atol=1e-2)


def test_ranks_above_the_loras_are_fresh_so_that_they_can_learn(painter, theirs):
    file = theirs()
    added(painter, rank=5, alpha=5)
    lora_start.begin(painter, "theta", file, "sft")

    for key, weight in adapters.weights(painter.network, "theta").items():
        if ".lora_A." in key:
            assert (weight.data[RANK:].abs().sum(1) > 0).all()
        else:
            assert (weight.data[:, :RANK] != 0).any()
            assert (weight.data[:, RANK:] == 0).all()


def test_layers_that_the_lora_does_not_adapt_begin_as_the_base(painter, theirs):
    file = theirs(lambda name: name.endswith("to_q"))
    added(painter, rank=4, alpha=4)

    said = lora_start.begin(painter, "theta", file, "sft")

    adapters.attach(painter, "theirs", file)
    expected = predicted(painter, "theirs")
    torch.testing.assert_close(predicted(painter, "theta"), expected, atol=1e-5, rtol=1e-4)
    layers = len(adapters.weights(painter.network, "theta")) // 2
    taken = len(adapters.weights(painter.network, "theirs")) // 2
    assert 0 < taken < layers
    assert f"{taken} layers of it, {layers - taken} more layers begin as the base" in said


@pytest.mark.parametrize("family", ["flux", "sdxl-v"])
def test_a_dora_begins_a_dora_of_a_higher_rank(painter, tmp_path):
    adapters.add(painter.network, "first", lora_params(rank=2, alpha=3, dora=True), seed=1)
    for parameter in adapters.weights(painter.network, "first").values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapters.save(painter, "first", tmp_path / "first")
    added(painter, rank=4, alpha=1, dora=True)

    lora_start.begin(painter, "theta", tmp_path / "first", "sft")

    expected = predicted(painter, "first")
    torch.testing.assert_close(predicted(painter, "theta"), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predicted(painter, None), expected, atol=1e-2)


REFUSED = {
    "too small a rank": (
        {"rank": 2, "alpha": 2},
        r"has rank 3, and cpo\.lora\.rank 2 cannot express it; set cpo\.lora\.rank to 3 or",
    ),
    "fewer layers": (
        {"rank": 3, "alpha": 3, "targets": ["to_q"]},
        r"adapts \d+ layers that cpo\.lora\.targets leaves out, such as ",
    ),
    "a plain LoRA for a DoRA": (
        {"rank": 3, "alpha": 3, "dora": True},
        r"is a LoRA without DoRA in \d+ layers, and cpo\.lora\.dora is true; set it to false",
    ),
}


@pytest.mark.parametrize("family", ["flux", "sdxl-v"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_shape_cannot_express_is_refused_and_changes_nothing(painter, theirs, case):
    shape, words = REFUSED[case]
    file = theirs()
    added(painter, **shape)
    before = [p.clone() for p in adapters.weights(painter.network, "theta").values()]

    with pytest.raises(ArtifactError, match=words):
        lora_start.begin(painter, "theta", file, "cpo")

    after = adapters.weights(painter.network, "theta").values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", ["flux"])
def test_what_is_no_lora_for_this_base_is_refused(painter, theirs, tmp_path):
    added(painter, rank=3, alpha=3)
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(3, 8)}
    file = theirs(**text)
    full = tmp_path / "full"
    full.mkdir()
    safetensors.torch.save_file({"a": torch.ones(1)}, full / adapters.FULL)
    (full / "config.json").write_text(json.dumps({}))

    with pytest.raises(ArtifactError, match="text encoders, which are not adapted here"):
        lora_start.begin(painter, "theta", file, "sft")
    with pytest.raises(ArtifactError, match="holds full weights; sft's init takes a LoRA"):
        lora_start.begin(painter, "theta", full, "sft")
    with pytest.raises(
        ArtifactError, match=r"holds no LoRA .* run `dvc pull` if .*absent\.dvc"
    ):
        lora_start.begin(painter, "theta", tmp_path / "absent", "sft")
