import json

import pytest
import safetensors.torch
import torch

from atelier.errors import ArtifactError
from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import unifiedreward, vision_language
from tests.atelier.metrics.conftest import qwen_ids, qwen_text

CPU = Compute("cpu", "float32")
CODE = "def ask(prompt):\n    return f'You are given a text caption [{prompt}].'\n"


@pytest.fixture
def home(tmp_path, qwen_words):
    """UnifiedReward's files, of transformers' real Qwen2.5-VL at toy size, in two shards."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder = tmp_path / "weights" / "unifiedreward"
    processor = qwen_words(folder, CODE)
    (folder / "qwen_point_score_image_generation.py").write_text(CODE)
    config = Qwen2_5_VLConfig(
        text_config=qwen_text(len(processor.tokenizer)),
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                       "out_hidden_size": 16, "fullatt_block_indexes": [0]},
        tie_word_embeddings=False,
        **qwen_ids(processor.tokenizer),
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = Qwen2_5_VLForConditionalGeneration(config).state_dict()
    where = {name: f"model-0000{1 + place % 2}-of-00002.safetensors"
             for place, name in enumerate(weights)}  # fmt: skip
    for file in set(where.values()):
        part = {name: weights[name].contiguous() for name in weights if where[name] == file}
        safetensors.torch.save_file(part, folder / file)
    (folder / vision_language.INDEX).write_text(json.dumps({"weight_map": where}))
    return folder


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("sea (object): 1\nFinal Score: 3.5", 3.5),
        ("Final Score: 2\nor better\n**Final Score:** 4", 4),
        ("Final Score: [5]", 5),
    ],
)
def test_the_last_score_counts(answer, score):
    assert unifiedreward.read(answer) == score


@pytest.mark.parametrize("answer", ["", "a sea", "Final Score: 0", "Final Score: 8.5"])
def test_an_answer_without_a_score_is_refused(answer):
    with pytest.raises(ArtifactError, match="wrote no score from 1 to 5"):
        unifiedreward.read(answer)


def test_the_publishers_files_are_asked_about_picture_and_caption(
    home, pictures, prompts, monkeypatch
):
    from transformers import Qwen2_5_VLForConditionalGeneration

    asked, real = [], Qwen2_5_VLForConditionalGeneration.generate
    answers = ["Final Score: 2.5", "Final Score: 4"]

    def write(network, **given):
        # The real network runs, and its words, which are random, are replaced.
        asked.append((processor.batch_decode(given["input_ids"]), given["do_sample"]))
        said = processor.tokenizer(answers, padding=True, return_tensors="pt")["input_ids"]
        return torch.cat([real(network, **given | {"max_new_tokens": 1})[:, :-1], said], dim=1)

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "generate", write)
    processor = vision_language.opened(
        __import__("transformers").AutoProcessor.from_pretrained, home
    )

    found = unifiedreward.load(home.parent, CPU)(pictures[:2], prompts[:2])

    assert found.tolist() == [2.5, 4]
    (texts, sampled), *_ = asked
    assert "You are given a text caption [a sea]." in texts[0]
    assert "[a blue sea]." in texts[1]
    assert not sampled
