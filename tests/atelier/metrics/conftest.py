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


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def qwen_words(tmp_path):
    """A function that saves Qwen2-VL's processor over bytes and the words of some texts."""

    def save(folder, *texts):
        from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

        from atelier.models.small import qwen_encoders

        _, tokenizer = qwen_encoders.qwen25_vl(16, texts, "")
        tokenizer.add_special_tokens(
            {"extra_special_tokens": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
                                      "<|video_pad|>"]}
        )  # fmt: skip
        assert isinstance(tokenizer, Qwen2Tokenizer)
        processor = Qwen2VLProcessor(
            Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT
        )
        processor.save_pretrained(folder)
        return processor

    return save


def qwen_ids(tokenizer):
    """The numbers of the tokens by which Qwen2-VL's networks know a picture."""
    named = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start",
             "vision_end": "vision_end"}  # fmt: skip
    return {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
        for name, word in named.items()
    }


def qwen_text(vocabulary):
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]
        },
    }  # fmt: skip
