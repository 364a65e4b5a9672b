import torch

from atelier.reporting import silent
from atelier.training import latents


def read(painter, images, folder, seen=None, batch=2):
    def pixels_of(hashes):
        if seen is not None:
            seen.extend(hashes)
        generators = [torch.Generator().manual_seed(int(h, 16)) for h in hashes]
        return torch.stack([torch.rand(3, 32, 32, generator=g) for g in generators])

    return latents.latents(
        painter, images, pixels_of, size=32, folder=folder, batch_images=batch, report=silent
    )


def test_latents_come_in_the_order_asked_for(painter, tmp_path):
    forth = read(painter, ["aa", "bb", "cc"], tmp_path)
    back = read(painter, ["cc", "aa"], tmp_path)

    assert torch.equal(back, forth[[2, 0]])


def test_nothing_is_encoded_twice(painter, tmp_path):
    read(painter, ["aa", "bb"], tmp_path, first := [])
    read(painter, ["bb", "cc", "aa"], tmp_path, second := [])

    assert (first, second) == (["aa", "bb"], ["cc"])


def test_another_codec_is_another_entry(painter, tmp_path):
    read(painter, ["aa"], tmp_path)
    painter.identity = "another"

    read(painter, ["aa"], tmp_path, seen := [])

    assert seen == ["aa"]


def test_a_flipped_bit_is_noticed_and_made_again(painter, tmp_path):
    clean = read(painter, ["aa", "bb"], tmp_path)
    shard = next(tmp_path.rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 4
    shard.write_bytes(content)

    again = read(painter, ["aa", "bb"], tmp_path, seen := [])

    assert seen == ["aa", "bb"]
    assert torch.equal(again, clean)


def test_each_text_is_encoded_once_and_comes_back_in_order(painter, tmp_path):
    prompts = ["calm", "", "a sea"]

    first = latents.texts(painter, prompts, folder=tmp_path, batch_texts=2, report=silent)
    again = latents.texts(painter, prompts[::-1], folder=tmp_path, batch_texts=2, report=silent)

    expected = painter.encode_texts(prompts)
    for name in expected:
        torch.testing.assert_close(first[name], expected[name])
        assert torch.equal(again[name], first[name].flip(0))
