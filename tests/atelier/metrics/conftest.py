"""Real networks of the metrics at toy size, with random weights."""

import numpy as np
import pytest
import torch


@pytest.fixture
def words():
    """A function that saves a CLIP tokenizer of 514 tokens: bytes and two marks."""

    def save(folder):
        from tokenizers import pre_tokenizers
        from transformers import CLIPTokenizer

        signs = sorted(pre_tokenizers.ByteLevel.alphabet())
        every = [*signs, *(f"{sign}</w>" for sign in signs)]
        every += ["<|startoftext|>", "<|endoftext|>"]
        vocabulary = {sign: place for place, sign in enumerate(every)}
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
        tokenizer.save_pretrained(folder)
        return len(vocabulary)

    return save


@pytest.fixture
def clip_folder(tmp_path, words):
    """A function that saves a CLIP of some 30 thousand weights, as transformers writes it."""

    def save(name, *, side=32, width=16, seed=0):
        from transformers import CLIPConfig, CLIPModel

        folder = tmp_path / name
        folder.mkdir(parents=True)
        count = words(folder)
        shape = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": width,
        }
        config = CLIPConfig(
            text_config={
                **shape,
                "vocab_size": count,
                "max_position_embeddings": 77,
                "bos_token_id": count - 2,
                "eos_token_id": count - 1,
                "pad_token_id": count - 1,
            },
            vision_config={**shape, "image_size": side, "patch_size": 8},
            projection_dim=width,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            CLIPModel(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def pictures():
    """Five pictures of coloured noise, 40 by 40."""
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (5, 40, 40, 3), dtype=np.uint8))


@pytest.fixture
def prompts():
    return ["a sea", "a blue sea", "two boats", "", "a portrait"]
