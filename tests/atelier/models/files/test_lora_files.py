"""LoRAs in the layouts of other trainers: read whole, to the same picture, or refused."""

import json
import re

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from atelier.errors import ArtifactError
from atelier.models import adapters, export
from atelier.models.files import lora_files, weight_files

EVERYWHERE = "all-linear"


@pytest.fixture
def trained(painter, lora, tmp_path):
    """A painter, its LoRA as it is saved here, and what it predicts with it."""
    wide = lora.model_copy(update={"targets": EVERYWHERE, "rank": 3, "alpha": 6.0})
    adapters.add(painter.network, "theta", wide, seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    adapters.save(painter, "theta", tmp_path / "own")
    return painter


def predicted(painter, name):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, *painter.latent_shape(32), generator=generator)
    with adapters.use(painter.network, name):
        return painter.predict(latents, torch.tensor([0.5]), painter.encode_texts(["a sea"]))


def own(tmp_path):
    """Layers of the saved LoRA by name: A, B, and the factor 2."""
    file = tmp_path / "own" / adapters.FILE
    found = safetensors.torch.load_file(file)
    names = [key.removesuffix(".lora_A.weight") for key in found if ".lora_A." in key]
    return {
        name.split(".", 1)[1]: (found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"])
        for name in names
    }


def written(path, tensors, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, path, {"format": "pt", **metadata})
    return path


def dotted(layers, prefix, *, alpha=None, names=("lora_A", "lora_B")):
    made = {}
    for name, (a, b) in layers.items():
        made[f"{prefix}{name}.{names[0]}.weight"] = a
        made[f"{prefix}{name}.{names[1]}.weight"] = b if alpha else 2 * b
        if alpha:
            made[f"{prefix}{name}.alpha"] = torch.tensor(alpha)
    return made


def flat(layers, prefix):
    return {
        f"{prefix}{key}": one
        for name, (a, b) in layers.items()
        for key, one in (
            (f"{name.replace('.', '_')}.lora_down.weight", a),
            (f"{name.replace('.', '_')}.lora_up.weight", b),
            (f"{name.replace('.', '_')}.alpha", torch.tensor(6.0)),
        )
    }


LAYOUTS = {
    "diffusers, no config": lambda layers, part: dotted(layers, f"{part}."),
    "diffusers with alpha": lambda layers, part: dotted(layers, f"{part}.", alpha=6.0),
    "bare names": lambda layers, part: dotted(layers, ""),
    "ai-toolkit": lambda layers, part: dotted(layers, "diffusion_model."),
    "ComfyUI": lambda layers, part: dotted(
        layers, "diffusion_model.", alpha=6.0, names=("lora_down", "lora_up")
    ),
    "peft": lambda layers, part: dotted(layers, "base_model.model."),
    "peft in a pipeline": lambda layers, part: dotted(layers, f"base_model.model.{part}."),
    "flat names of diffusers": lambda layers, part: flat(layers, "lora_unet_"),
    "OneTrainer": lambda layers, part: flat(layers, "lora_transformer_"),
    "LyCORIS": lambda layers, part: flat(layers, "lycoris_"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_of_another_trainer_gives_the_same_picture(layout, trained, tmp_path):
    made = LAYOUTS[layout](own(tmp_path), trained.component)
    file = written(tmp_path / "theirs.safetensors", made)

    adapters.attach(trained, "theirs", file)

    expected = predicted(trained, "theta")
    torch.testing.assert_close(predicted(trained, "theirs"), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predicted(trained, None), expected, atol=1e-2)


@pytest.mark.parametrize("family", ["sdxl-epsilon", "flux"])
@pytest.mark.parametrize("rslora", [False, True])
def test_what_was_exported_reads_back_to_the_same_picture(
    family, rslora, build, lora, tmp_path
):
    in_blocks = ["to_q", "to_k", "to_out.0", "proj_mlp", "norm1.linear", "net.2", "to_add_out"]
    targets = in_blocks if family == "flux" else EVERYWHERE
    shape = {"targets": targets, "rank": 3, "alpha": 5.0, "rslora": rslora}
    painter = build(family)
    adapters.add(painter.network, "theta", lora.model_copy(update=shape), seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.2)

    export.export(painter, "theta", tmp_path / "theta.safetensors")
    adapters.attach(painter, "back", tmp_path / "theta.safetensors")

    expected = predicted(painter, "theta")
    torch.testing.assert_close(predicted(painter, "back"), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predicted(painter, None), expected, atol=1e-2)


def test_our_own_file_is_read_bit_for_bit(trained, tmp_path):
    adapters.attach(trained, "again", tmp_path / "own")

    one, two = (adapters.weights(trained.network, name) for name in ("theta", "again"))
    assert all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))
    assert torch.equal(predicted(trained, "again"), predicted(trained, "theta"))


@pytest.mark.parametrize("family", ["flux"])
def test_a_folder_of_peft_brings_its_config(trained, tmp_path):
    layers = {name: (a, b) for name, (a, b) in own(tmp_path).items()}
    made = {
        f"base_model.model.{name}.lora_{part}.weight": tensor
        for name, pair in layers.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
    written(tmp_path / "peft" / "adapter_model.safetensors", made)
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["to_q"]}
    (tmp_path / "peft" / weight_files.ADAPTER_CONFIG).write_text(json.dumps(config))

    adapters.attach(trained, "theirs", tmp_path / "peft")

    torch.testing.assert_close(predicted(trained, "theirs"), predicted(trained, "theta"))


@pytest.mark.parametrize("family", ["flux"])
def test_layers_of_several_ranks_and_alphas_are_each_scaled_by_their_own(trained, tmp_path):
    layers = own(tmp_path)
    first = next(iter(layers))
    made = flat(layers, "lora_unet_")
    stem = f"lora_unet_{first.replace('.', '_')}"
    a, b = layers[first]
    # The same product in twice the rank, with an alpha that undoes the halves.
    made[f"{stem}.lora_down.weight"] = torch.cat([a, a])
    made[f"{stem}.lora_up.weight"] = torch.cat([b, b], 1)
    made[f"{stem}.alpha"] = torch.tensor(6.0)

    adapters.attach(trained, "theirs", written(tmp_path / "x.safetensors", made))

    torch.testing.assert_close(
        predicted(trained, "theirs"), predicted(trained, "theta"), atol=1e-5, rtol=1e-4
    )


def spoiled(tmp_path, part, how):
    """Our own LoRA with something more, or something wrong."""
    layers = own(tmp_path)
    made = dotted(layers, f"{part}.")
    name = next(iter(layers))
    more = {
        "unknown layer": {f"{part}.blocks.7.to_q.lora_A.weight": torch.ones(3, 4),
                          f"{part}.blocks.7.to_q.lora_B.weight": torch.ones(4, 3)},
        "text encoder": {"text_encoder.layers.0.fc1.lora_A.weight": torch.ones(3, 4)},
        "kohya's text encoder": {"lora_te1_text_model_fc1.lora_down.weight": torch.ones(3, 4)},
        "LoKr": {f"{part}.{name}.lokr_w1": torch.ones(3, 4)},
        "DoRA of kohya": {f"{part}.{name}.dora_scale": torch.ones(3, 4)},
        "bias": {f"{part}.{name}.diff_b": torch.ones(3)},
        "no B": {f"{part}.x.lora_A.weight": torch.ones(3, 4)},
        "twice": {f"diffusion_model.{name}.lora_A.weight": layers[name][0],
                  f"diffusion_model.{name}.lora_B.weight": layers[name][1]},
        "width": {f"{part}.{name}.lora_A.weight": torch.ones(3, 5)},
        "two ranks": {f"{part}.{name}.lora_A.weight": torch.ones(2, len(layers[name][0][0]))},
        "NaN": {f"{part}.{name}.lora_B.weight": layers[name][1] * float("nan")},
        "alphas": {f"{part}.{name}.alpha": torch.ones(2)},
        "infinite": {f"{part}.{name}.lora_B.weight": layers[name][1] / 0},
    }  # fmt: skip
    return made | more[how]


@pytest.mark.parametrize("family", ["flux", "sdxl-epsilon"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("unknown layer", r"layers that the network does not have \(1, such as '.*blocks.7"),
        ("text encoder", r"adapted here: .*--network_train_unet_only\) \(1, such as 'text_e"),
        ("kohya's text encoder", r"text encoders, .* \(1, such as 'lora_te1_text"),
        ("LoKr", r"LoKr, which is no LoRA \(1, such as '.*lokr_w1'\)"),
        ("DoRA of kohya", r"DoRA of LyCORIS, which is no LoRA \(1, "),
        ("bias", r"full differences, which is no LoRA \(1, "),
        ("no B", r"halves of layers, A without B or B without A \(1, "),
        ("twice", r"layers that stand in the file twice \(1, "),
        ("width", r"layers of another width \(the base's .* is \d+ x \d+\) \(1, "),
        ("two ranks", r"layers whose A and B are of two ranks \(1, "),
        ("alphas", r"layers whose alpha is no number \(1, "),
        ("NaN", r"numbers that are none \(NaN, infinite or above 1e\+10\) in 1 of "),
        ("infinite", r"numbers that are none \(NaN, infinite or above 1e\+10\) in 1 of "),
    ],
)
def test_a_lora_that_would_be_used_in_part_is_refused(how, says, trained, tmp_path):
    made = spoiled(tmp_path, trained.component, how)
    file = written(tmp_path / "theirs.safetensors", made)

    with pytest.raises(ArtifactError, match=says) as caught:
        adapters.attach(trained, "theirs", file)

    assert len(str(caught.value)) < 800
    assert "theirs" not in trained.network.peft_config


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quantum": 1}, "has 1 keys that the installed peft does not know, .*'quantum'"),
        ({"r": 7}, r"says rank 7 in its config and has rank 3 in \S+ \((\d+) of \1 layers"),
        ({"rank_pattern": {"x_embedder": 9}}, r"rank 9 in its .* rank 3 in x_emb.*\(1 of"),
        ({"lora_alpha": "much"}, "lora_alpha should be a number above 0, is 'much'"),
        ({"r": None}, "r should be a number above 0, is None"),
        ({"lora_alpha": 1e300}, "lora_alpha should be a number above 0, is 1e"),
        ({"alpha_pattern": [2]}, r"alpha_pattern should give numbers above 0 by layer, is \[2"),
        ({"rank_pattern": {"to_q": "2"}}, "rank_pattern should give numbers above 0 by layer"),
        ({"alpha_pattern": {"to_q(": 2}}, r"alpha_pattern has 'to_q\(', which is no name of a"),
        ({"use_rslora": "no"}, "use_rslora should be true or false, is 'no'"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_one_sentence(change, says, trained, tmp_path):
    file = tmp_path / "own" / adapters.FILE
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()["lora_adapter_metadata"])
    config |= {f"transformer.{key}": value for key, value in change.items()}
    spoiled = written(
        tmp_path / "theirs.safetensors",
        safetensors.torch.load_file(file),
        lora_adapter_metadata=json.dumps(config),
    )

    with pytest.raises(ArtifactError, match=says) as caught:
        adapters.attach(trained, "theirs", spoiled)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("family", ["flux"])
@pytest.mark.parametrize("text", ["{", "[]", "3", '{"transformer.r": "\\ud800"}'])
def test_a_config_that_is_none_is_one_sentence(text, trained, tmp_path):
    tensors = safetensors.torch.load_file(tmp_path / "own" / adapters.FILE)
    file = written(tmp_path / "x.safetensors", tensors, lora_adapter_metadata=text)

    with pytest.raises(ArtifactError, match=re.escape(str(file))) as caught:
        adapters.attach(trained, "theirs", file)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("family", ["flux"])
def test_alpha_is_said_once(trained, tmp_path):
    file = tmp_path / "own" / adapters.FILE
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    made = dotted(own(tmp_path), "transformer.", alpha=6.0)
    twice = written(tmp_path / "x.safetensors", made, **metadata)

    with pytest.raises(ArtifactError, match="gives alpha twice"):
        adapters.attach(trained, "theirs", twice)


def test_a_layer_is_scaled_as_peft_scales_it():
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {"b": 16}, "alpha_pattern": {"^a.b$": 1}}
    tensors = {
        f"{name}.lora_{part}.weight": torch.ones(1, 1) for name in ("c", "a.b") for part in "AB"
    }

    def scales(**more):
        layers = lora_files.Lora(tensors, config | more, {}).layers()
        return {name: scale for name, (_, _, scale) in layers.items()}

    assert scales() == {"c": 8 / 4, "a.b": 1 / 16}
    assert scales(use_rslora=True) == {"c": 8 / 2, "a.b": 1 / 4}
