import numpy as np
import pytest
import safetensors.torch
import torch

from atelier.errors import ArtifactError
from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import hpsv3
from tests.atelier.metrics.conftest import qwen_ids, qwen_text

CPU = Compute("cpu", "float32")
CODE = f'''
INSTRUCTION = """
You are tasked with evaluating a generated image.
Textual prompt - {{text_prompt}}
"""
with_token = """
Please provide the overall ratings of this image: {hpsv3.TOKEN}

END
"""
without_token = """
Please provide the overall ratings of this image: 
"""
'''  # noqa: W291


@pytest.fixture
def home(tmp_path, qwen_words):
    """HPSv3's files as they are published, of transformers' real Qwen2-VL at toy size."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = tmp_path / "weights" / "hpsv3"
    processor = qwen_words(folder / "words", CODE)
    (folder / "data_collator_qwen.py").write_text(CODE)
    count = len(processor.tokenizer)
    config = Qwen2VLConfig(
        text_config=qwen_text(count),
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2,
                       "mlp_ratio": 2},
        tie_word_embeddings=False,
        **qwen_ids(processor.tokenizer),
    )  # fmt: skip
    config.save_pretrained(folder / "words")
    config.text_config.vocab_size = count + 1  # the token that is rated
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = Qwen2VLForConditionalGeneration(config)
        for weight in whole.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        head = hpsv3.head(16)
    weights = {
        # As transformers 4 called them, by which the publisher saved them.
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): t
        for name, t in whole.state_dict().items()
    }
    weights |= {f"rm_head.{name}": tensor for name, tensor in head.state_dict().items()}
    file = folder / "HPSv3.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, file)
    return folder


def test_the_publishers_files_score_pictures_of_any_size_and_batch(home, pictures, prompts):
    score = hpsv3.load(home.parent, CPU)
    pictures = [*pictures[:2], np.concatenate([pictures[2]] * 3)]

    together = score(pictures, prompts[:3])

    alone = [score([p], [t])[0] for p, t in zip(pictures, prompts, strict=False)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert abs(score(pictures[:1], ["two boats"])[0] - together[0]) > 1e-5  # the caption
    assert abs(score(pictures[1:2], prompts[:1])[0] - together[0]) > 1e-5  # the picture


def test_the_mean_of_the_rating_at_the_token_is_the_score(home, pictures):
    from transformers import AutoProcessor, Qwen2VLConfig

    processor = AutoProcessor.from_pretrained(home / "words")
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [hpsv3.TOKEN]})
    config = Qwen2VLConfig.from_pretrained(home / "words")
    config.text_config.vocab_size = len(processor.tokenizer)
    path = home / "HPSv3.safetensors"
    network = hpsv3.build(config, safetensors.torch.load_file(path), path, CPU)
    seen = []
    network.head.register_forward_hook(lambda module, given, found: seen.append((given, found)))

    score = hpsv3.scoring(network, processor, f"{{text_prompt}} {hpsv3.TOKEN} end", CPU)
    found = score([pictures[0]], ["a sea"])

    (given,), rated = seen[0]
    assert given.shape == (1, 16)
    assert rated.shape == (1, 2)
    assert found[0] == pytest.approx(float(rated[0, 0]))


def test_pictures_keep_their_shape_and_have_about_as_many_pixels():
    for height, width in ((40, 40), (400, 100), (64, 1000)):
        sized = hpsv3.sized(np.zeros((height, width, 3), np.uint8))

        assert sized.width % 28 == sized.height % 28 == 0
        assert 0.8 <= sized.width * sized.height / (256 * 28 * 28) <= 1.3
        assert sized.width / sized.height == pytest.approx(width / height, rel=0.35)


def test_weights_of_another_network_are_refused(home):
    path = home / "HPSv3.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["visual.merger.mlp.0.weight"]
    safetensors.torch.save_file(weights, path)

    with pytest.raises(ArtifactError, match="1 missing, such as"):
        hpsv3.load(home.parent, CPU)


def test_words_without_the_token_are_no_question(home, pictures):
    (home / "data_collator_qwen.py").write_text('A = "You are tasked"')

    with pytest.raises(ArtifactError, match="0 texts that begin with 'You are tasked with"):
        hpsv3.load(home.parent, CPU)
