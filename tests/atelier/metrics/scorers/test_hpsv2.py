import numpy as np
import open_clip
import pytest
import torch

from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import clip, hpsv2

CPU = Compute("cpu", "float32")


@pytest.fixture
def network():
    """open_clip's own CLIP, of the same kind as ViT-H-14, with few weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.model.CLIP(
            embed_dim=16,
            vision_cfg={
                "image_size": 28,
                "layers": 2,
                "width": 16,
                "head_width": 8,
                "patch_size": 14,
            },
            text_cfg={
                "context_length": 77,
                "vocab_size": 49408,
                "width": 16,
                "heads": 2,
                "layers": 2,
            },
        ).eval()


def test_pixels_by_hand():
    # Two columns, black and white, shrunk to one pixel: grey, (0.5 - mean) / deviation.
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = 255

    pixels = hpsv2.preprocess([image], 1)

    grey = [(0.5 - mean) / std for mean, std in zip(clip.MEAN, clip.STD, strict=True)]
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor(grey))


def test_nothing_is_rounded_between():
    # Grey 100 and 101 in turn: Pillow would round their mean to a whole number.
    image = np.full((4, 4, 3), 100, np.uint8)
    image[:, ::2] = 101

    tensor_way = hpsv2.preprocess([image], 1)[0, 0, 0, 0] * clip.STD[0] + clip.MEAN[0]

    assert float(tensor_way) * 255 == pytest.approx(100.5, abs=0.2)
    assert float(tensor_way) * 255 != pytest.approx(round(float(tensor_way) * 255), abs=1e-3)


def test_the_score_is_a_cosine_without_scale():
    pictures, texts = torch.tensor([[3.0, 4.0]]), torch.tensor([[8.0, 6.0]])

    # (3·8 + 4·6) / (5 · 10)
    torch.testing.assert_close(hpsv2.hpsv2(pictures, texts), torch.tensor([0.96]))


def test_a_real_network_scores_pictures_of_any_size_and_batch(network, pictures, prompts):
    score = hpsv2.scoring(network, open_clip.get_tokenizer("ViT-H-14"), CPU)

    together = score(pictures, prompts)

    alone = [score([p], [t])[0] for p, t in zip(pictures, prompts, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    with torch.no_grad():
        seen = network.encode_image(hpsv2.preprocess(pictures, 28), normalize=True)
        read = network.encode_text(open_clip.tokenize(prompts), normalize=True)
    np.testing.assert_allclose(together, (seen * read).sum(1).numpy(), atol=1e-4)


def test_the_two_versions_are_two_metrics_with_two_files():
    assert hpsv2.V20.weights != hpsv2.V21.weights
    assert hpsv2._FILES["hpsv2.0"] != hpsv2._FILES["hpsv2.1"]
