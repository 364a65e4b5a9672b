import pytest
import torch

from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters


@pytest.fixture
def taught(painter, lora):
    """A painter with two adapters that change what it predicts."""
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapters.weights(painter.network, name).values():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return painter


def predict(painter, images=1):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(images, *painter.latent_shape(32), generator=generator)
    condition = painter.encode_texts(["a sea"] * images)
    return painter.predict(latents, torch.full((images,), 0.5), condition)


def alike(one, other):
    """Up to a hundred times rounding, which in these networks is 1e-6 to 1e-5."""
    return torch.allclose(one, other, atol=1e-3, rtol=1e-3)


def test_a_fresh_adapter_changes_nothing(painter, lora):
    before = predict(painter)

    adapters.add(painter.network, "theta", lora, seed=0)

    with adapters.use(painter.network, "theta"):
        assert alike(predict(painter), before)


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("flux", "to_nothing"),
        ("flux", "norm_out"),  # a module, but no layer
        ("z_image", "adaLN_modulation.0"),  # a linear layer in blocks, and SiLU at the end
    ],
)
def test_a_target_that_is_no_linear_layer_is_refused_by_its_name(build, lora, family, target):
    with pytest.raises(ParamsError, match=rf"lora\.targets \['{target}'\] does not fit a"):
        adapters.add(
            build(family).network,
            "theta",
            lora.model_copy(update={"targets": [target]}),
            seed=0,
        )


def test_the_same_seed_gives_the_same_adapter(painter, lora):
    adapters.add(painter.network, "one", lora, seed=5)
    adapters.add(painter.network, "two", lora, seed=5)

    one, two = (adapters.weights(painter.network, name) for name in ("one", "two"))

    assert len(one) == len(two) > 0
    assert all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))


def test_a_copy_predicts_what_its_source_does_and_moves_alone(taught):
    adapters.copy(taught.network, "theta1", "theta")

    with adapters.use(taught.network, "theta1"):
        theta1 = predict(taught)
    with adapters.use(taught.network, "theta"):
        assert torch.equal(predict(taught), theta1)
    for parameter in adapters.weights(taught.network, "theta").values():
        parameter.data += 1
    with adapters.use(taught.network, "theta1"):
        assert torch.equal(predict(taught), theta1)


@pytest.mark.parametrize("change", [{"rank": 3}, {"alpha": 5}, {"targets": ["to_q"]}])
def test_a_copy_of_another_shape_is_refused(taught, lora, change):
    adapters.add(taught.network, "other", lora.model_copy(update=change), seed=0)

    with pytest.raises(
        ArtifactError, match=r"other cannot begin as theta1: .* rank 2, alpha 2,"
    ):
        adapters.copy(taught.network, "theta1", "other")


def test_adapter_off_is_the_base_bit_for_bit(painter, lora):
    before = predict(painter)
    adapters.add(painter.network, "theta", lora, seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter)

    with adapters.use(painter.network, None):
        assert torch.equal(predict(painter), before)
    with adapters.use(painter.network, "theta"):
        assert not alike(predict(painter), before)


def test_states_nest_and_come_back(taught):
    with adapters.use(taught.network, "theta"):
        theta = predict(taught)
        with adapters.use(taught.network, "theta1"):
            theta1 = predict(taught)
            with adapters.use(taught.network, None):
                base = predict(taught)
            assert torch.equal(predict(taught), theta1)
        assert torch.equal(predict(taught), theta)

    assert not alike(theta, theta1)
    assert not alike(theta, base)


@pytest.mark.parametrize(
    "state", [None, "theta1", {"theta1": 0.5, "theta": 1.0}], ids=["base", "one", "sum"]
)
def test_without_gradients_a_state_is_the_same_and_nobody_is_freed_to_learn(taught, state):
    with adapters.use(taught.network, "theta"):
        with adapters.use(taught.network, state):
            expected = predict(taught)
        flags = [p.requires_grad for p in taught.network.parameters()]
        with torch.no_grad(), adapters.use(taught.network, state):
            assert alike(predict(taught), expected)
        assert [p.requires_grad for p in taught.network.parameters()] == flags
        learned = predict(taught)
    with torch.no_grad(), adapters.use(taught.network, "theta"):
        assert alike(predict(taught), learned)


@pytest.mark.numerical
@pytest.mark.parametrize("state", ["theta1", {"theta1": 0.5, "theta": 1.0}], ids=["one", "sum"])
def test_a_state_predicts_the_same_whether_or_not_its_weights_require_gradients(taught, state):
    # Without gradients this is one call made again: only the flags outside differ.
    own = [
        p
        for name in ("theta1", "theta")
        for p in adapters.weights(taught.network, name).values()
    ]
    found = []
    for flag in (False, True):
        for parameter in own:
            parameter.requires_grad_(flag)
        with torch.no_grad(), adapters.use(taught.network, state):
            found.append(predict(taught, images=3))
            assert found[-1].grad_fn is None
        assert all(parameter.requires_grad == flag for parameter in own)

    assert torch.equal(*found)


def test_an_error_inside_leaves_the_state_as_it_was(taught):
    with adapters.use(taught.network, "theta"):
        theta = predict(taught)
        with pytest.raises(KeyError), adapters.use(taught.network, None):
            raise KeyError
        assert torch.equal(predict(taught), theta)


def test_only_the_policy_gets_gradients_after_the_teacher_spoke(taught, family):
    with adapters.use(taught.network, "theta"):
        for parameter in adapters.weights(taught.network, "theta").values():
            parameter.requires_grad_(True)
        with torch.no_grad(), adapters.use(taught.network, "theta1"):
            target = predict(taught)
        (predict(taught) - target).square().mean().backward()

    trained = adapters.weights(taught.network, "theta")
    idle = {n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0}
    # The last blocks of SD3 and Qwen-Image drop what becomes of the text.
    last = {"sd3": "transformer_blocks.1.", "qwen_image": "transformer_blocks.0."}.get(family)
    unread = ("add_q_proj", "to_add_out", "txt_mlp")
    assert all(last and last in name and any(one in name for one in unread) for name in idle)
    others = [p for n, p in taught.network.named_parameters() if ".theta." not in n]
    assert all(p.grad is None for p in others)


def test_a_saved_adapter_comes_back_whole(taught, tmp_path, lora):
    with adapters.use(taught.network, "theta"):
        before = predict(taught)

    adapters.save(taught, "theta", tmp_path)
    adapters.attach(taught, "again", tmp_path)

    theta, again = (adapters.weights(taught.network, name) for name in ("theta", "again"))
    assert all(map(torch.equal, theta.values(), again.values()))
    with adapters.use(taught.network, "again"):
        assert alike(predict(taught), before)
    assert taught.network.peft_config["again"].lora_alpha == lora.alpha
    assert not any(p.requires_grad for p in adapters.weights(taught.network, "again").values())


def test_a_lora_that_is_attached_to_a_bfloat16_base_keeps_every_bit(taught, lora, tmp_path):
    painter = taught
    before = {
        key: one.clone() for key, one in adapters.weights(painter.network, "theta1").items()
    }
    adapters.save(painter, "theta1", tmp_path)
    painter.network.to(torch.bfloat16)

    adapters.attach(painter, "again", tmp_path)

    found = adapters.weights(painter.network, "again")
    assert {one.dtype for one in found.values()} == {torch.float32}
    for key, one in found.items():
        assert torch.equal(one, before[key.replace(".again.", ".theta1.")])


def test_alpha_other_than_rank_survives_saving(painter, lora, tmp_path):
    adapters.add(painter.network, "theta", lora.model_copy(update={"alpha": 7.0}), seed=0)
    for parameter in adapters.weights(painter.network, "theta").values():
        torch.nn.init.normal_(parameter, std=0.1)
    with adapters.use(painter.network, "theta"):
        before = predict(painter)

    adapters.save(painter, "theta", tmp_path)
    adapters.attach(painter, "again", tmp_path)

    with adapters.use(painter.network, "again"):
        assert alike(predict(painter), before)


KINDS = pytest.mark.parametrize(
    "changes",
    [{"rslora": True, "alpha": 3.0}, {"dora": True}, {"dora": True, "rslora": True}],
    ids=["rslora", "dora", "both"],
)


def taught_as(painter, lora, changes):
    adapters.add(painter.network, "theta", lora.model_copy(update=changes), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapters.weights(painter.network, "theta").items():
        if "magnitude" in name:
            parameter.data.mul_(1.1)
        else:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)


@KINDS
def test_the_kinds_of_lora_survive_saving(painter, lora, changes, tmp_path):
    taught_as(painter, lora, changes)
    with adapters.use(painter.network, "theta"):
        before = predict(painter)

    adapters.save(painter, "theta", tmp_path)
    adapters.attach(painter, "again", tmp_path)

    with adapters.use(painter.network, "again"):
        assert alike(predict(painter), before)
    again = painter.network.peft_config["again"]
    assert again.use_dora == changes.get("dora", False)
    assert again.use_rslora == changes.get("rslora", False)


@KINDS
def test_a_fresh_lora_of_any_kind_is_the_base(painter, lora, changes):
    before = predict(painter)

    adapters.add(painter.network, "theta", lora.model_copy(update=changes), seed=0)

    with adapters.use(painter.network, "theta"):
        assert alike(predict(painter), before)


def test_rslora_divides_by_the_root_of_the_rank(painter, lora):
    rank = {"rank": 4, "alpha": 4.0}
    taught_as(painter, lora, {**rank, "rslora": True})
    with adapters.use(painter.network, "theta"):
        rooted = predict(painter)
    adapters.add(
        painter.network, "plain", lora.model_copy(update={**rank, "alpha": 8.0}), seed=0
    )
    for one, two in zip(
        adapters.weights(painter.network, "theta").values(),
        adapters.weights(painter.network, "plain").values(),
        strict=True,
    ):
        two.data.copy_(one)

    with adapters.use(painter.network, "plain"):  # 4 / sqrt(4) = 8 / 4
        assert alike(predict(painter), rooted)


def test_dropout_is_on_only_where_the_adapter_learns(painter, lora):
    taught_as(painter, lora, {"dropout": 0.5})
    with adapters.use(painter.network, "theta"):
        still = predict(painter)
        assert torch.equal(predict(painter), still)

    with adapters.learning(painter.network, "theta"):
        assert not alike(predict(painter), still)
        with adapters.use(painter.network, None):
            assert torch.equal(predict(painter), predict(painter))

    with adapters.use(painter.network, "theta"):
        assert torch.equal(predict(painter), still)


def test_an_absent_adapter_names_the_stage_that_makes_it(painter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with pytest.raises(ArtifactError, match=r"is absent; run `dvc repro cpo`"):
        adapters.attach(painter, "theta", Path("artifacts/cpo/cpo-s"))


def test_an_adapter_of_another_base_is_refused(painter, tmp_path):
    import safetensors.torch

    layer = {"transformer": "proj_out", "unet": "time_embedding.linear_1"}[painter.component]
    alien = {
        f"{painter.component}.{layer}.lora_A.weight": torch.zeros(2, 5),
        f"{painter.component}.{layer}.lora_B.weight": torch.zeros(6, 2),
    }
    safetensors.torch.save_file(alien, tmp_path / adapters.FILE)

    with pytest.raises(ArtifactError, match="does not fit the base model in force"):
        adapters.attach(painter, "theta", tmp_path)


def test_the_same_weights_give_the_same_bytes(taught, tmp_path):
    # safetensors orders metadata by chance; DVC would train again after a revert.
    files = set()
    for attempt in range(8):
        adapters.save(taught, "theta", tmp_path / str(attempt))
        files.add((tmp_path / str(attempt) / adapters.FILE).read_bytes())

    assert len(files) == 1


def test_states_of_several_adapters_add_up_in_their_shares(taught):
    with adapters.use(taught.network, {"theta": 1.0}):
        alone = predict(taught)
    with adapters.use(taught.network, "theta"):
        theta = predict(taught)
    with adapters.use(taught.network, {"theta": 0.0}):
        none = predict(taught)
    with adapters.use(taught.network, {"theta": 0.0, "theta1": 1.0}):
        second = predict(taught)
    with adapters.use(taught.network, "theta1"):
        theta1 = predict(taught)
    with adapters.use(taught.network, None):
        base = predict(taught)

    assert alike(alone, theta)
    assert alike(none, base)
    assert alike(second, theta1)


def test_two_adapters_are_the_sum_of_their_weights(taught, lora):
    # One adapter whose weights are stacked acts as both together.
    both = lora.model_copy(update={"rank": 2 * lora.rank, "alpha": 2 * lora.alpha})
    adapters.add(taught.network, "stacked", both, seed=0)
    named = {n: adapters.weights(taught.network, n) for n in ("theta", "theta1", "stacked")}
    for key, parameter in named["stacked"].items():
        parts = [named[n][key.replace(".stacked.", f".{n}.")].data for n in ("theta", "theta1")]
        if ".lora_A." in key:
            parts[1] = 0.25 * parts[1]
        parameter.data = torch.cat(parts, 0 if ".lora_A." in key else 1)

    with adapters.use(taught.network, {"theta": 1.0, "theta1": 0.25}):
        added = predict(taught)
    with adapters.use(taught.network, "stacked"):
        stacked = predict(taught)

    assert alike(added, stacked)


def test_a_flipped_bit_is_known_by_the_checksum_beside_the_weights(taught, tmp_path):
    adapters.save(taught, "theta1", tmp_path)
    file = adapters.file(tmp_path)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1  # a weight: still a readable file of another network
    file.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"safetensors is damaged: .*sha256; remove"):
        adapters.attach(taught, "again", tmp_path)

    adapters.save(taught, "theta1", tmp_path)
    adapters.attach(taught, "again", tmp_path)
