import json

import numpy as np
import pytest
import safetensors.torch
import torch

from atelier.errors import ArtifactError
from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import artimuse, vision_language

CPU = Compute("cpu", "float32")
CONFIG = {
    "downsample_ratio": 0.5, "select_layer": -1, "ps_version": "v2",
    "vision_config": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "patch_size": 14,
        "num_attention_heads": 2, "hidden_act": "gelu", "norm_type": "layer_norm",
        "layer_norm_eps": 1e-6, "qkv_bias": True, "qk_normalization": False, "image_size": 56,
    },
    "llm_config": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "tie_word_embeddings": False,
    },
}  # fmt: skip
# What transformers calls a weight → what InternVL's own code calls it.
THEIRS = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.multi_modal_projector.layer_norm.": "mlp1.0.",
    "model.multi_modal_projector.linear_1.": "mlp1.1.",
    "model.multi_modal_projector.linear_2.": "mlp1.3.",
    "model.vision_tower.": "vision_model.",
    ".cls_token": ".class_embedding",
    ".patch_embeddings.projection.": ".patch_embedding.",
    ".position_embeddings": ".position_embedding",
    ".encoder.layer.": ".encoder.layers.",
    ".attention.projection_layer.": ".attn.proj.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    ".lambda_1": ".ls1",
    ".lambda_2": ".ls2",
}


def published(weights):
    """The weights as InternVL's own code names them, with query, key and value in one."""
    found = {}
    for name, tensor in weights.items():
        called = name
        for ours, theirs in THEIRS.items():
            called = called.replace(ours, theirs)
        if "vision_model" in called and ".attention.q_proj." in called:
            parts = [weights[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            called, tensor = called.replace("attention.q_proj", "attn.qkv"), torch.cat(parts)
        elif "vision_model" in called and "_proj." in called:
            continue
        found[called] = tensor.contiguous()
    return found


@pytest.fixture
def home(tmp_path):
    """ArtiMuse's files, of transformers' real InternVL at toy size, and that network."""
    from transformers import InternVLForConditionalGeneration

    from atelier.models.small import qwen_encoders

    folder = tmp_path / "weights" / "artimuse"
    folder.mkdir(parents=True)
    _, tokenizer = qwen_encoders.qwen25_vl(16, ["sea boats"], "")
    tokenizer.add_tokens(artimuse.ratings())
    tokenizer.add_special_tokens({"extra_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"]})
    tokenizer.save_pretrained(folder)
    (folder / "modeling_artimuse.py").write_text(
        "def score():\n    q = '''\n    Rate the aesthetics score of the image in 0-100.'''\n"
    )
    (folder / "conversation.py").write_text(
        "add(Talk(name='internvl2_5', system_message='You are a judge.'))\n"
    )
    config = CONFIG | {"llm_config": CONFIG["llm_config"] | {"vocab_size": len(tokenizer)}}
    (folder / "config.json").write_text(json.dumps(config))
    seen = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InternVLForConditionalGeneration(
            artimuse.read_config(folder / "config.json", seen)
        ).eval()
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    weights = published(network.state_dict())
    safetensors.torch.save_file(weights, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (folder / vision_language.INDEX).write_text(json.dumps(index))
    return folder, network, tokenizer


def test_the_ratings_are_a_hundred_and_one_words():
    words = artimuse.ratings()

    assert len(set(words)) == 101
    told = {0: "aa", 25: "az", 26: "ca", 50: "cy", 51: "da", 75: "dy", 76: "ea", 100: "ey"}
    assert {place: words[place] for place in told} == told


def test_the_score_is_the_mean_of_the_ratings_by_hand():
    logits = torch.full((1, 103), -torch.inf)
    logits[0, 2 + 40] = logits[0, 2 + 60] = 1.0

    torch.testing.assert_close(
        artimuse.artimuse(logits, torch.arange(2, 103)), torch.tensor([50.0])
    )


def test_pixels_by_hand():
    pixels = artimuse.preprocess([np.full((5, 9, 3), 255, np.uint8)], 4)

    assert pixels.shape == (1, 3, 4, 4)
    torch.testing.assert_close(pixels[0, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))


def test_the_publishers_weights_make_the_same_network(home, pictures):
    folder, network, tokenizer = home
    score = artimuse.load(folder.parent, CPU)

    found = score(pictures, [""] * len(pictures))

    asked = artimuse.chat(
        "You are a judge.", "\n    Rate the aesthetics score of the image in 0-100.", 4
    )
    ids = tokenizer([asked] * len(pictures), return_tensors="pt")
    assert int((ids["input_ids"][0] == network.config.image_token_id).sum()) == 4
    with torch.no_grad():
        logits = network(**ids, pixel_values=artimuse.preprocess(pictures, 56)).logits[:, -1]
    places = torch.tensor(tokenizer.convert_tokens_to_ids(artimuse.ratings()))
    expected = artimuse.artimuse(logits, places)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)
    assert np.ptp(found) > 1e-2
    np.testing.assert_allclose(score(pictures[:1], ["a boat"]), found[:1], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"select_layer": -4}, "describes another network"),
        ({"ps_version": "v1"}, "describes another network"),
        ({"llm_config": {"model_type": "llama"}}, "describes another network"),
        ({"vision_config": {}}, r"is no config of InternVL \(KeyError"),
    ],
)
def test_another_config_is_refused(tmp_path, change, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | change))

    with pytest.raises(ArtifactError, match=said):
        artimuse.read_config(path, 1)


def test_weights_that_are_not_all_there_are_refused(home):
    folder, *_ = home
    file = folder / "model-00001-of-00001.safetensors"
    weights = safetensors.torch.load_file(file)
    weights["language_model.model.stranger"] = weights.pop("mlp1.3.bias")
    safetensors.torch.save_file(weights, file)

    with pytest.raises(ArtifactError, match=r"1 missing, such as .* 1 unexpected"):
        artimuse.load(folder.parent, CPU)
