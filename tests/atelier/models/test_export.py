import pytest
import safetensors.torch
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from atelier.errors import ArtifactError
from atelier.models import adapters, export
from atelier.models.files.lora_files import Target
from tests.atelier import plain

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture
def attention(lora):
    return lora.model_copy(update={"rank": 2, "alpha": 3.0, "targets": ATTENTION})


def taught(painter, lora):
    adapters.add(painter.network, "theta", lora, seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.5)
    return painter


def painted(painter, noise):
    condition, empty = painter.encode_texts(["a sea"]), painter.encode_texts([""])
    return painter.sample(noise, condition, empty, steps=3, guidance=1.0)


def read_by_diffusers(painter, folder, noise):
    theirs = plain.loaded(type(painter.pipeline()), folder / "base")
    theirs.load_lora_weights(folder, weight_name="theta.safetensors")
    return plain.paint(theirs, ["a sea"], noise, steps=3)


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("sdxl-epsilon", ATTENTION),
        ("flux-double", ATTENTION),
        ("flux-double", ["to_k"]),
        ("flux-double", ["to_q", "add_v_proj", "to_add_out", "net.2", "norm1.linear"]),
        ("chroma-double", ATTENTION),
        ("chroma-double", ["to_q", "add_v_proj", "to_add_out", "net.2"]),
        ("z_image", ATTENTION),
        ("z_image", ["to_q", "w2", "layers.0.adaLN_modulation.0"]),
        ("qwen_image", ATTENTION),
        ("qwen_image", ["to_q", "add_v_proj", "to_add_out", "net.2", "img_mod.1"]),
        ("flux2_klein", [*ATTENTION, "to_qkv_mlp_proj"]),
        ("flux2_klein", ["to_k", "add_v_proj", "to_add_out", "linear_in", "linear_out"]),
    ],
)
def test_diffusers_reads_it_back_and_paints_the_same(
    family, targets, build, attention, tmp_path
):
    painter = build(family)
    painter.pipeline().save_pretrained(tmp_path / "base")
    taught(painter, attention.model_copy(update={"targets": targets}))
    noise = torch.randn(
        1, *painter.latent_shape(32), generator=torch.Generator().manual_seed(0)
    )
    ours = painted(painter, noise)
    with adapters.use(painter.network, None):
        untaught = painted(painter, noise)

    export.export(painter, "theta", tmp_path / "theta.safetensors")

    found = read_by_diffusers(painter, tmp_path, noise)
    torch.testing.assert_close(found, ours, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours, untaught, atol=1e-2)


def test_a_single_block_of_flux_is_read_back_as_it_was(tmp_path):
    # One single block of FLUX.1's own width, without its weights.
    with torch.device("meta"):
        network = FluxTransformer2DModel(
            num_layers=0, num_single_layers=1, num_attention_heads=24, attention_head_dim=128
        )
    generator = torch.Generator().manual_seed(0)
    block = "single_transformer_blocks.0."
    layers = {
        block + name: (
            torch.randn(2, inside, generator=generator),
            torch.randn(outside, 2, generator=generator),
        )
        for name, inside, outside in [
            ("attn.to_q", 3072, 3072), ("attn.to_v", 3072, 3072), ("proj_mlp", 3072, 12288),
            ("proj_out", 15360, 3072), ("norm.linear", 3072, 9216),
        ]
    }  # fmt: skip

    tensors = export.flux(network, layers, dict.fromkeys(layers, 1.5))
    safetensors.torch.save_file(tensors, tmp_path / "theta.safetensors")

    read = FluxPipeline.lora_state_dict(tmp_path, weight_name="theta.safetensors")
    for name, (down, up) in layers.items():
        found = (read.pop(f"transformer.{name}.lora_{part}.weight") for part in "AB")
        a, b = found
        torch.testing.assert_close(b @ a, 1.5 * up @ down, atol=1e-3, rtol=1e-3)
    assert all(not tensor.any() for name, tensor in read.items() if ".lora_B." in name)


@pytest.mark.parametrize("family", ["chroma-double", "z_image", "flux2_klein", "qwen_image"])
def test_we_read_it_back_as_it_was(family, build, attention, tmp_path):
    painter = build(family)
    taught(painter, attention)

    export.export(painter, "theta", tmp_path / "theta.safetensors")
    adapters.attach(painter, "again", tmp_path / "theta.safetensors")

    for own, again in zip(
        lora_products(painter, "theta"), lora_products(painter, "again"), strict=True
    ):
        torch.testing.assert_close(again, own, atol=1e-4, rtol=1e-4)


def lora_products(painter, name):
    """``scale B A`` of each layer, in order."""
    layers = adapters.lora(painter, name).layers()
    return [scale * up @ down for _, (down, up, scale) in sorted(layers.items())]


@pytest.mark.parametrize("family", ["sdxl-epsilon"])
# readers divide by the rank, 2; rsLoRA divides by its root
@pytest.mark.parametrize(("rslora", "alpha"), [(False, 3.0), (True, 3 * 2**0.5)])
def test_alpha_says_the_scale(rslora, alpha, painter, attention, tmp_path):
    taught(painter, attention.model_copy(update={"rslora": rslora}))

    export.export(painter, "theta", tmp_path / "theta.safetensors")

    tensors = safetensors.torch.load_file(tmp_path / "theta.safetensors")
    alphas = [tensor.item() for name, tensor in tensors.items() if name.endswith(".alpha")]
    assert alphas == pytest.approx([alpha] * len(alphas), rel=1e-4)
    assert alphas


@pytest.mark.parametrize("family", ["sdxl-epsilon"])
def test_a_dora_is_refused(painter, attention, tmp_path):
    taught(painter, attention.model_copy(update={"dora": True}))

    with pytest.raises(ArtifactError, match="a DoRA cannot be written in this layout"):
        export.export(painter, "theta", tmp_path / "theta.safetensors")


@pytest.mark.parametrize("family", ["sd3"])
def test_a_network_that_the_layout_does_not_know_is_refused(painter, attention, tmp_path):
    taught(painter, attention)

    with pytest.raises(
        ArtifactError, match="own is known for this network, a SD3Transformer2DModel"
    ):
        export.export(painter, "theta", tmp_path / "theta.safetensors")


@pytest.mark.parametrize("family", ["flux"])
def test_a_layer_that_the_layout_does_not_name_is_refused(painter, attention, tmp_path):
    taught(painter, attention.model_copy(update={"targets": "all-linear"}))

    with pytest.raises(ArtifactError, match="no name for the layer 'context_embedder'"):
        export.export(painter, "theta", tmp_path / "theta.safetensors")


@pytest.mark.parametrize("family", ["flux"])
def test_ranks_are_written_for_what_is_trained_alone(painter, attention, tmp_path):
    taught(painter, attention.model_copy(update={"targets": ["to_q", "to_v"]}))

    export.export(painter, "theta", tmp_path / "theta.safetensors")

    tensors = safetensors.torch.load_file(tmp_path / "theta.safetensors")
    downs = [one for name, one in tensors.items() if name.endswith("lora_down.weight")]
    ups = [one for name, one in tensors.items() if name.endswith("lora_up.weight")]
    assert {len(down) for down in downs} == {4}  # two of rank 2, not of k nor of the MLP
    assert all(up.any(0).all() for up in ups)


@pytest.mark.parametrize("family", ["sdxl-epsilon"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_scale_that_half_precision_cannot_hold_goes_into_the_weights(
    painter, attention, tmp_path, dtype
):
    taught(painter, attention.model_copy(update={"rslora": True}))
    state = adapters.lora(painter, "theta")
    target = Target(painter.component, painter.network, type(painter.pipeline()))
    file = tmp_path / "theta.safetensors"

    export.write(state, target, file, export.About("x", "", "", 32), dtype)

    alphas = {
        tensor.item()
        for name, tensor in safetensors.torch.load_file(file).items()
        if name.endswith(".alpha")
    }
    assert len(alphas) == 1
    assert (alphas == {2.0}) == (dtype == torch.bfloat16)


def test_sdxls_own_names_are_those_of_its_code():
    # SDXL has two layers a block: input blocks 1, 2, 4, 5, 7, 8, resamplers at 3 and 6.
    assert {name: export.sdxl_name(name, 2) for name in SDXL_NAMES} == SDXL_NAMES
    assert export.sdxl_name("mid_block.norm", 2) is None


SDXL_NAMES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.attentions.0.proj_in": "input_blocks.4.1.proj_in",
    "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0":
        "input_blocks.8.1.transformer_blocks.9.attn2.to_out.0",
    "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
    "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj":
        "output_blocks.2.1.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.resnets.0.conv_shortcut": "output_blocks.3.0.skip_connection",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.2.resnets.2.conv1": "output_blocks.8.0.in_layers.2",
    "conv_out": "out.2",
}  # fmt: skip
