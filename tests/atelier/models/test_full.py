"""Full weights as a state of the network, beside the base and LoRAs."""

import json

import pytest
import safetensors.torch
import torch

from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, codec

FAMILIES = pytest.mark.parametrize("family", ["flux", "sdxl-epsilon"])


def predict(painter, state):
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, *painter.latent_shape(32), generator=generator)
    condition = painter.encode_texts(["a sea", "calm edges"])
    with torch.no_grad(), adapters.use(painter.network, state):
        return painter.predict(latents, torch.tensor([0.3, 0.7]), condition)


def alike(one, other):
    return torch.allclose(one, other, atol=1e-3, rtol=1e-3)


def move(painter, name, by=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters.weights(painter.network, name).values():
        parameter.data += by * torch.randn(parameter.shape, generator=generator)


@pytest.fixture
def taught(painter, lora):
    """θ1 in full, θ a LoRA that came after, and one more in full."""
    adapters.add(painter.network, "theta1", "full", seed=0)
    adapters.add(painter.network, "theta", lora, seed=0)
    adapters.add(painter.network, "other", "full", seed=0)
    for name in ("theta1", "theta"):
        move(painter, name)
    move(painter, "other", seed=1)
    return painter


@FAMILIES
def test_a_copy_of_full_weights_predicts_what_they_do(taught):
    adapters.copy(taught.network, "theta1", "other")

    assert torch.equal(predict(taught, "other"), predict(taught, "theta1"))
    with pytest.raises(ArtifactError, match=r"one has \d+ full weights, the other a LoRA of"):
        adapters.copy(taught.network, "theta1", "theta")


@FAMILIES
def test_a_fresh_full_state_is_the_base_and_a_taught_one_leaves_it_alone(painter, lora):
    bare = predict(painter, None)
    adapters.add(painter.network, "theta1", "full", seed=0)
    assert alike(predict(painter, "theta1"), bare)

    adapters.add(painter.network, "theta", lora, seed=0)
    adapters.add(painter.network, "other", "full", seed=0)  # after a LoRA wrapped layers
    for name in ("theta1", "theta", "other"):
        assert alike(predict(painter, name), bare) or name == "theta1"
        move(painter, name, seed=len(name))

    assert torch.equal(predict(painter, None), bare)
    found = [predict(painter, name) for name in ("theta1", "theta", "other")]
    assert not any(alike(one, bare) for one in found)
    assert not alike(found[0], found[2])
    names = [set(adapters.weights(painter.network, name)) for name in ("theta1", "other")]
    assert names[0] == names[1]
    assert not any("base_layer" in name or "lora" in name for name in names[0])


@pytest.mark.numerical
@FAMILIES
def test_states_nest_and_come_back_after_exceptions(taught):
    network = taught.network
    expected = {name: predict(taught, name) for name in (None, "theta1", "theta", "other")}
    before = [(id(p), p.data_ptr(), p.requires_grad) for p in network.parameters()]

    # The same call in the same state, so the same bits; of a state its weights' flags are part.
    for outer in expected:
        with adapters.use(network, outer):
            for inner in expected:
                assert torch.equal(predict(taught, inner), expected[inner])
                with pytest.raises(KeyError), adapters.use(network, inner):
                    raise KeyError
            assert torch.equal(predict(taught, outer), expected[outer])
    with pytest.raises(KeyError), adapters.learning(network, "theta1"):
        raise KeyError

    assert [(id(p), p.data_ptr(), p.requires_grad) for p in network.parameters()] == before


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_state_that_learns_gets_gradients(painter, dtype):
    painter.network.to(dtype)
    for name in ("theta1", "theta"):
        adapters.add(painter.network, name, "full", seed=0)
    trained = adapters.weights(painter.network, "theta")
    latents = torch.randn(2, *painter.latent_shape(32))
    condition = painter.encode_texts(["a sea", "calm edges"])

    with adapters.learning(painter.network, "theta"):
        with torch.no_grad(), adapters.use(painter.network, "theta1"):
            target = painter.predict(latents, torch.tensor([0.3, 0.7]), condition)
        found = painter.predict(latents, torch.tensor([0.3, 0.7]), condition)
        (found - target - 1).square().mean().backward()

    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    assert sum(p.grad.abs().sum() for p in trained.values() if p.grad is not None) > 0
    frozen = [*painter.network.parameters()]
    frozen += adapters.weights(painter.network, "theta1").values()
    assert all(parameter.grad is None for parameter in frozen)
    assert not any(p.requires_grad for p in painter.network.parameters())


@FAMILIES
def test_saved_it_paints_the_same_in_a_pipeline_without_our_code(painter, tmp_path):
    painter.pipeline().save_pretrained(tmp_path / "base")
    adapters.add(painter.network, "theta", "full", seed=0)
    move(painter, "theta")
    adapters.save(painter, "theta", tmp_path / "full")
    latents = torch.randn(2, *painter.latent_shape(32))
    condition, empty = painter.encode_texts(["a sea", "calm"]), painter.encode_texts([""])

    def sample(state):
        with torch.no_grad(), adapters.use(painter.network, state):
            return painter.sample(latents, condition, empty, steps=3, guidance=1.0)

    kind = type(painter.pipeline())
    network = type(painter.network).from_pretrained(tmp_path / "full")
    theirs = kind.from_pretrained(
        tmp_path / "base",
        vae=codec.PatchPCA.from_pretrained(tmp_path / "base" / "vae"),
        **{painter.component: network},
    )
    start, limit = latents, {}
    if hasattr(kind, "_pack_latents"):
        start, limit = kind._pack_latents(latents, *latents.shape), {"max_sequence_length": 12}
    found = theirs(
        prompt=["a sea", "calm"], latents=start, height=32, width=32, num_inference_steps=3,
        guidance_scale=1.0, output_type="latent", **limit,
    ).images  # fmt: skip
    if hasattr(kind, "_unpack_latents"):
        found = kind._unpack_latents(found, 8, 8, vae_scale_factor=1)

    torch.testing.assert_close(found, sample("theta"), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found, sample(None), atol=1e-2)
    assert "_name_or_path" not in json.loads((tmp_path / "full/config.json").read_text())


@FAMILIES
def test_saved_and_attached_its_weights_are_the_same_to_the_bit(taught, tmp_path):
    expected = predict(taught, "theta1")
    with adapters.use(taught.network, "other"):  # saved from whatever state
        adapters.save(taught, "theta1", tmp_path)
    first = (tmp_path / adapters.FULL).read_bytes()
    adapters.save(taught, "theta1", tmp_path)
    adapters.attach(taught, "again", tmp_path)

    assert (tmp_path / adapters.FULL).read_bytes() == first
    saved, again = (adapters.weights(taught.network, name) for name in ("theta1", "again"))
    assert saved.keys() == again.keys()
    assert all(torch.equal(again[name], saved[name]) for name in saved)
    assert alike(predict(taught, "again"), expected)
    assert not any(p.requires_grad for p in adapters.weights(taught.network, "again").values())


@FAMILIES
def test_of_two_kinds_the_last_one_saved_lies_in_the_folder(taught, tmp_path):
    for name, file, other in (
        ("theta", adapters.FILE, adapters.FULL),
        ("theta1", adapters.FULL, adapters.FILE),
        ("theta", adapters.FILE, adapters.FULL),
    ):
        adapters.save(taught, name, tmp_path)
        assert adapters.file(tmp_path) == tmp_path / file
        assert not (tmp_path / other).exists()


@FAMILIES
def test_full_weights_cannot_be_shared_out(taught):
    for shares in ({"theta1": 0.5}, {"theta1": 1.0, "theta": 1.0}):
        with (
            pytest.raises(ParamsError, match=r"'theta1' is full weights, which cannot be add"),
            adapters.use(taught.network, shares),
        ):
            pass


@FAMILIES
def test_weights_of_another_network_and_damaged_ones_are_refused(taught, tmp_path):
    adapters.save(taught, "theta1", tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / adapters.FULL)
    odd = sorted(tensors)[3]
    safetensors.torch.save_file(tensors | {odd: torch.zeros(3, 3, 3)}, tmp_path / adapters.FULL)
    (tmp_path / f"{adapters.FULL}.sha256").unlink()  # as a file brought from elsewhere
    with pytest.raises(ArtifactError, match=rf"1 of its weights .* the first is {odd}"):
        adapters.attach(taught, "again", tmp_path)

    (tmp_path / adapters.FULL).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is damaged"):
        adapters.attach(taught, "again", tmp_path)


@FAMILIES
def test_a_quantised_base_is_refused(painter):
    painter.network.hf_quantizer = object()

    with pytest.raises(ParamsError, match=r"full precision: set model\.quantise to null"):
        adapters.add(painter.network, "theta", "full", seed=0)
