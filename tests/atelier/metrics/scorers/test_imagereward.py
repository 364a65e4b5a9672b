import json

import numpy as np
import pytest
import torch
from PIL import Image

from atelier.errors import ArtifactError
from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import clip, imagereward

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "sea", "blue", "two", "boats"]
MED = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,  # the head expects it
    "initializer_range": 0.02,
    "intermediate_size": 16,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS) + 2,  # with [DEC] and [ENC]
    "encoder_width": 16,
    "add_cross_attention": True,
}


def tokenizer(tmp_path):
    from transformers import BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})


@pytest.fixture
def med(tmp_path):
    path = tmp_path / "med_config.json"
    path.write_text(json.dumps(MED))
    return path


@pytest.fixture
def network(tmp_path, med):
    """The package's network with a small eye, one layer of text, and a head that tells."""
    imagereward.module()
    from ImageReward.models.BLIP.vit import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        eye = VisionTransformer(
            img_size=224, patch_size=112, embed_dim=16, depth=1, num_heads=2
        )
        found = imagereward.build(med, tokenizer(tmp_path), (eye, 16))
        for layer in found.mlp.layers:
            if isinstance(layer, torch.nn.Linear):  # as shipped it answers a constant
                torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return found.eval()


def test_scores_are_those_of_the_package_itself(network, pictures):
    texts = ["a sea", "blue sea", "two boats", "a", "sea"]
    ours = imagereward.scoring(network, Compute("cpu", "float32"))(pictures, texts)

    theirs = [
        network.score(text, Image.fromarray(picture))
        for text, picture in zip(texts, pictures, strict=True)
    ]

    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert np.ptp(ours) > 1e-4


def test_a_reward_by_hand(network):
    # A head that answers 1.2005 whatever it sees: (1.2005 - 0.16717…) / 1.03333… = 1.0000
    with torch.no_grad():
        for layer in network.mlp.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
        network.mlp.layers[-1].bias.fill_(0.16717362830052426 + 1.0333394966054072)
        pixels = clip.preprocess([np.zeros((8, 8, 3), np.uint8)], 224)
        tokens = torch.tensor([[2, 5, 6, 3]])

        found = imagereward.imagereward(network, pixels, tokens, torch.ones_like(tokens))

    torch.testing.assert_close(found, torch.tensor([1.0]))


def test_a_tokenizer_of_another_network_is_refused(tmp_path):
    path = tmp_path / "med_config.json"
    path.write_text(json.dumps({**MED, "vocab_size": 30524}))
    imagereward.module()
    from ImageReward.models.BLIP.vit import VisionTransformer

    eye = VisionTransformer(img_size=224, patch_size=112, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(ArtifactError, match="has 12 tokens, but the network expects 30524"):
        imagereward.build(path, tokenizer(tmp_path), (eye, 16))
