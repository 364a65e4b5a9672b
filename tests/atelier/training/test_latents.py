import threading

import numpy as np
import pytest
import torch

from atelier.errors import ArtifactError
from atelier.images import Framed
from atelier.models.sampling import to_pixels
from atelier.reporting import silent
from atelier.training import latents


def picture(image, size):
    return np.random.default_rng(int(image, 16)).integers(0, 256, (*size, 3), dtype=np.uint8)


def read(painter, images, folder, seen=None, batch=2, sizes=None):
    def framed(image, size):
        if seen is not None:
            seen.append(image)
        return Framed(picture(image, size), (100, int(image, 16)), (0, 7))

    return latents.latents(
        painter, images, sizes or [(32, 32)] * len(images), framed,
        folder=folder, batch_images=batch, report=silent,
    )  # fmt: skip


def rows(column):
    return column[torch.arange(len(column))]


def test_latents_come_in_the_order_asked_for(painter, tmp_path):
    forth = rows(read(painter, ["aa", "bb", "cc"], tmp_path).latents)
    back = rows(read(painter, ["cc", "aa"], tmp_path).latents)

    assert torch.equal(back, forth[[2, 0]])
    expected = painter.encode_images(to_pixels(np.stack([picture("aa", (32, 32))])))
    torch.testing.assert_close(forth[:1], expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_encoded_twice(painter, tmp_path):
    read(painter, ["aa", "bb"], tmp_path, first := [])
    read(painter, ["bb", "cc", "aa"], tmp_path, second := [])

    assert (first, second) == (["aa", "bb"], ["cc"])


def test_the_next_pictures_are_read_while_these_are_encoded(painter, tmp_path):
    third = threading.Event()
    encode = painter.encode_images

    def framed(image, size):
        if image == "cc":
            third.set()
        return Framed(picture(image, size), size, (0, 0))

    def waiting(pixels):
        assert third.wait(10)  # nobody else would let it go on
        return encode(pixels)

    painter.encode_images = waiting
    latents.latents(
        painter, ["aa", "bb", "cc"], [(32, 32)] * 3, framed,
        folder=tmp_path, batch_images=2, report=silent,
    )  # fmt: skip


def test_another_codec_is_another_entry(painter, tmp_path):
    read(painter, ["aa"], tmp_path)
    painter.identity = "another"

    read(painter, ["aa"], tmp_path, seen := [])

    assert seen == ["aa"]


def test_a_picture_at_another_size_is_another_entry(painter, tmp_path):
    read(painter, ["aa", "bb"], tmp_path)

    found = read(painter, ["aa", "bb"], tmp_path, seen := [], sizes=[(64, 16), (32, 32)])

    assert seen == ["aa"]
    tall, square = (found.latents[torch.tensor([row])] for row in (0, 1))
    assert tall.shape[2] == 4 * tall.shape[3]
    assert tall.numel() == square.numel()
    assert square.shape == (1, *painter.latent_shape(32))


def test_what_was_cut_off_travels_with_the_latents(painter, tmp_path):
    read(painter, ["aa", "0b"], tmp_path)

    frames = rows(read(painter, ["0b", "aa"], tmp_path).frames)

    assert frames.tolist() == [[100, 11, 0, 7], [100, 170, 0, 7]]


def test_a_flipped_bit_is_noticed_and_made_again(painter, tmp_path):
    clean = rows(read(painter, ["aa", "bb"], tmp_path).latents)
    shard = next(tmp_path.rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)

    with pytest.raises(ArtifactError, match="was corrupted on disk, and is removed"):
        rows(read(painter, ["aa", "bb"], tmp_path, []).latents)
    again = rows(read(painter, ["aa", "bb"], tmp_path, seen := []).latents)

    assert seen == ["aa", "bb"]
    assert torch.equal(again, clean)


def test_each_text_is_encoded_once_and_comes_back_in_order(painter, tmp_path):
    prompts = ["calm", "", "a sea"]

    first = latents.texts(painter, prompts, folder=tmp_path, batch_texts=2, report=silent)
    again = latents.texts(painter, prompts[::-1], folder=tmp_path, batch_texts=2, report=silent)

    expected = painter.encode_texts(prompts)
    assert set(first) == set(expected)
    for name in expected:
        torch.testing.assert_close(rows(first[name]), expected[name], atol=1e-4, rtol=1e-4)
        assert torch.equal(rows(again[name]), rows(first[name]).flip(0))
