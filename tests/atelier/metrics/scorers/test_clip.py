import numpy as np
import pytest
import torch
from PIL import Image

from atelier.errors import ArtifactError
from atelier.metrics import scorer
from atelier.metrics.scorer import Compute
from atelier.metrics.scorers import aesthetic, clip, clipscore, pickscore

CPU = Compute("cpu", "float32")


def test_pixels_by_hand():
    # Already at the side: (x / 255 - mean) / deviation, channel by channel.
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (255, 51, 102)

    pixels = clip.preprocess([image], 2)

    expected = [
        (value - mean) / std
        for value, mean, std in zip((1.0, 0.2, 0.4), clip.MEAN, clip.STD, strict=True)
    ]
    torch.testing.assert_close(pixels[0, :, 0, 1], torch.tensor(expected))
    black = [-mean / std for mean, std in zip(clip.MEAN, clip.STD, strict=True)]
    torch.testing.assert_close(pixels[0, :, 1, 0], torch.tensor(black))


def test_the_middle_of_a_wide_picture_is_seen():
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, 3:7] = 255

    pixels = clip.preprocess([image], 4)

    white = torch.tensor([(1 - m) / s for m, s in zip(clip.MEAN, clip.STD, strict=True)])
    torch.testing.assert_close(pixels[0], white[:, None, None].expand(3, 4, 4))


@pytest.mark.parametrize("size", [(50, 37), (31, 64), (20, 20)])
def test_preprocessing_is_that_of_transformers(size):
    from transformers import CLIPImageProcessorPil

    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )

    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]

    torch.testing.assert_close(clip.preprocess([image], 24), theirs, atol=1e-4, rtol=0)


def test_embeddings_are_those_of_the_network(clip_folder, pictures, prompts):
    from transformers import CLIPModel

    folder = clip_folder("clip-l")
    network = CLIPModel.from_pretrained(folder).eval()

    mine = clip.Clip(folder, CPU)

    with torch.no_grad():
        seen = network.vision_model(pixel_values=clip.preprocess(pictures, 32)).pooler_output
        torch.testing.assert_close(
            mine.see(pictures), network.visual_projection(seen), atol=1e-3, rtol=1e-3
        )
    # One by one or together: padding says nothing.
    alone = torch.cat([mine.read([prompt]) for prompt in prompts])
    torch.testing.assert_close(mine.read(prompts), alone, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(alone[0], alone[1])


def test_a_caption_longer_than_the_network_reads_is_cut(clip_folder):
    mine = clip.Clip(clip_folder("clip-l"), CPU)

    torch.testing.assert_close(
        mine.read(["ab" * 100]), mine.read(["ab" * 200]), atol=1e-3, rtol=1e-3
    )


def test_scores_by_hand():
    # cos = 0.6 and -0.8; lengths must not matter
    pictures = torch.tensor([[5.0, 0.0], [0.0, 2.0]])
    texts = torch.tensor([[0.3, 0.4], [0.6, -0.8]])

    torch.testing.assert_close(
        clipscore.clipscore(pictures, texts), torch.tensor([60.0, 0.0]), atol=1e-3, rtol=1e-4
    )
    scale = torch.tensor(np.log(100.0))
    found = pickscore.pickscore(pictures, texts, scale)
    torch.testing.assert_close(
        found, torch.tensor([60.0, -80.0], dtype=found.dtype), atol=1e-3, rtol=1e-4
    )


def test_the_aesthetic_head_by_hand():
    # Weights that add up what comes in: 3-4-5 has length 1 as (0.6, 0.8), which sums to 1.4;
    # 1024 hidden units of 1/1024 each carry it through, and 0.5 is added at the end.
    head = aesthetic.head(2)
    linear = [layer for layer in head if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer in linear:
            layer.weight.fill_(1 / layer.in_features)
            layer.bias.zero_()
        linear[0].weight.fill_(1.0)
        linear[-1].bias.fill_(0.5)

    found = aesthetic.aesthetic(torch.tensor([[3.0, 4.0]]), head.eval())

    torch.testing.assert_close(found, torch.tensor([1.9]), atol=1e-3, rtol=0)
    assert [layer.out_features for layer in linear] == [1024, 128, 64, 16, 1]


def test_each_metric_scores_with_real_networks(clip_folder, tmp_path, pictures, prompts):
    clip_folder("clip-l")
    clip_folder("pickscore", seed=1)
    rate = aesthetic.head(16)
    named = {f"layers.{name}": value for name, value in rate.state_dict().items()}
    (tmp_path / "aesthetic").mkdir()
    torch.save(named, tmp_path / "aesthetic/sac+logos+ava1-l14-linearMSE.pth")

    for metric in (clipscore, pickscore, aesthetic):
        score = metric.load(tmp_path, CPU)
        together = score(pictures, prompts)
        alone = np.concatenate(
            [score([p], [t]) for p, t in zip(pictures, prompts, strict=True)]
        )
        assert together.shape == (5,)
        assert together.dtype == np.float64
        np.testing.assert_allclose(together, alone, atol=1e-2)
    network = clip.Clip(tmp_path / "pickscore", CPU)
    cosines = (scorer.unit(network.see(pictures)) * scorer.unit(network.read(prompts))).sum(1)
    # transformers starts logit_scale at 2.6592, as the paper does: e^2.6592 = 14.285
    expected = 14.285 * cosines.double().numpy()
    np.testing.assert_allclose(
        pickscore.load(tmp_path, CPU)(pictures, prompts), expected, rtol=1e-3
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers_nearly_the_same_in_float32(
    clip_folder, pictures, prompts, dtype
):
    folder = clip_folder("clip-l").parent

    full = clipscore.load(folder, CPU)(pictures, prompts)
    half = clipscore.load(folder, Compute("cpu", dtype))(pictures, prompts)

    np.testing.assert_allclose(half, full, atol=2)


def test_a_folder_without_its_tokenizer_is_refused(clip_folder):
    folder = clip_folder("clip-l")
    for file in folder.glob("*tokenizer*"):
        file.unlink()
    for file in ("vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)

    with pytest.raises(ArtifactError, match="clip-l"):
        clip.Clip(folder, CPU)


def test_code_in_a_pth_file_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("sprung",))

    path = tmp_path / "trap.pth"
    torch.save({"weight": Trap()}, path)

    with pytest.raises(ArtifactError, match=r"trap\.pth cannot be read as weights alone"):
        scorer.read_pickle(path)


def test_weights_of_another_network_are_refused(tmp_path):
    network = torch.nn.Linear(2, 1)
    others = {"weight": torch.ones(1, 2), "stranger": torch.ones(1)}

    with pytest.raises(ArtifactError, match="1 weights are missing, such as \\['bias'\\]"):
        scorer.fill(network, others, tmp_path / "x.pt", frozenset())
    with pytest.raises(ArtifactError, match="does not fit its network"):
        scorer.fill(network, {"weight": torch.ones(5, 5)}, tmp_path / "x.pt", frozenset())
