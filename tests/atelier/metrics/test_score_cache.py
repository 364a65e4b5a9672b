import dataclasses

import numpy as np
import pytest

from atelier.metrics import score_cache, suite
from atelier.metrics.about import Entry
from atelier.metrics.score_cache import Remembered
from atelier.reporting import silent

ENTRY = Entry(suite.ALL["clipscore"], {"clip-l/model.safetensors": "ab" * 32}, "float32", None)
BLIND = dataclasses.replace(ENTRY, about=suite.ALL["aesthetic"])


def pictures(count=5):
    return list(np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8))


class Network:
    """A scorer that says how bright a picture is, and remembers what it was asked."""

    def __init__(self):
        self.asked, self.loads = [], 0

    def load(self):
        self.loads += 1
        return self

    def __call__(self, images, prompts):
        self.asked += prompts
        return np.array([image.mean() for image in images])


def score(network, folder, entry=ENTRY, images=None, prompts=None):
    images = pictures() if images is None else images
    return score_cache.scored(
        entry,
        images,
        prompts or [f"prompt {place}" for place in range(len(images))],
        load=network.load,
        folder=folder,
        batch_images=2,
        report=silent,
    )


def test_nothing_is_scored_twice(tmp_path):
    network = Network()

    first = score(network, tmp_path)
    second = score(network, tmp_path)

    np.testing.assert_array_equal(first, [image.mean() for image in pictures()])
    np.testing.assert_array_equal(first, second)
    assert len(network.asked) == 5
    assert network.loads == 1  # the second time it was not even loaded


@pytest.mark.parametrize(
    "changed",
    [
        dataclasses.replace(ENTRY, dtype="bfloat16"),
        dataclasses.replace(ENTRY, files={"clip-l/model.safetensors": "cd" * 32}),
        dataclasses.replace(ENTRY, about=dataclasses.replace(ENTRY.about, version="2")),
        dataclasses.replace(ENTRY, about=suite.ALL["pickscore"]),
    ],
)
def test_another_version_weights_or_precision_scores_anew(tmp_path, changed):
    network = Network()
    score(network, tmp_path)

    score(network, tmp_path, changed)

    assert len(network.asked) == 10


def test_a_caption_counts_only_where_it_is_read(tmp_path):
    network, others = Network(), ["another"] * 5

    score(network, tmp_path)
    score(network, tmp_path, prompts=others)
    assert len(network.asked) == 10
    score(network, tmp_path, BLIND)
    score(network, tmp_path, BLIND, prompts=others)
    assert len(network.asked) == 15


def test_one_changed_picture_is_the_only_one_scored_again(tmp_path):
    network, images = Network(), pictures()
    score(network, tmp_path)
    images[3] = images[3] + 1

    score(network, tmp_path, images=images)

    assert network.asked[5:] == ["prompt 3"]


def test_what_was_scored_before_a_crash_is_kept(tmp_path):
    network = Network()

    def dying(images, prompts):
        if len(network.asked) == 4:
            raise KeyboardInterrupt
        return network(images, prompts)

    with pytest.raises(KeyboardInterrupt):
        score_cache.scored(
            ENTRY,
            pictures(),
            [f"prompt {place}" for place in range(5)],
            load=lambda: dying,
            folder=tmp_path,
            batch_images=2,
            report=silent,
        )
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text(file.read_text()[:-9])  # and the last line was cut

    score(network, tmp_path)

    assert network.asked[4:] == ["prompt 3", "prompt 4"]
    np.testing.assert_array_equal(score(Network(), tmp_path), [p.mean() for p in pictures()])


def test_a_score_that_is_no_number_is_not_kept(tmp_path):
    network = Network()

    with pytest.raises(ValueError, match="clipscore gave"):
        score_cache.scored(
            ENTRY,
            pictures(1),
            ["x"],
            load=lambda: lambda images, prompts: np.array([np.nan]),
            folder=tmp_path,
            batch_images=2,
            report=silent,
        )
    assert score(network, tmp_path).shape == (5,)


def test_features_of_a_set_are_computed_once(tmp_path):
    class Means:
        name, identity, asked = "means", "means-1", 0

        def features(self, images):
            self.asked += 1
            return np.array([image.mean(axis=(0, 1)) for image in images])

    network = Means()
    remembered = Remembered(network, tmp_path)

    first = remembered.features(pictures())
    np.testing.assert_array_equal(remembered.features(pictures()), first)
    assert network.asked == 1
    remembered.features(pictures(4))
    assert network.asked == 2
    network.identity = "means-2"
    Remembered(network, tmp_path).features(pictures())
    assert network.asked == 3


def flip(file, place):
    """Turn one bit of a file, as a disk does that nobody sees dying."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("without_a_sum", [False, True])
def test_damaged_features_are_told_and_computed_again(tmp_path, without_a_sum):
    class Means:
        name, identity = "means", "means-1"

        def features(self, images):
            return np.array([image.mean(axis=(0, 1)) for image in images])

    remembered = Remembered(Means(), tmp_path)
    first = remembered.features(pictures())
    (file,) = tmp_path.glob("*.npy")
    if without_a_sum:  # of an older version
        file.with_suffix(".npy.sha256").unlink()
        file.write_bytes(file.read_bytes()[:-9])
    else:
        flip(file, -3)  # in a number: still a readable array

    with pytest.warns(UserWarning, match="damaged on the disk and is made anew"):
        np.testing.assert_array_equal(remembered.features(pictures()), first)
    np.testing.assert_array_equal(remembered.features(pictures()), first)


def test_a_score_that_the_disk_changed_is_computed_again(tmp_path):
    network = Network()
    first = score(network, tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    number = file.read_bytes().index(b", ") + 2  # the first digit of the first score
    flip(file, number)

    np.testing.assert_array_equal(score(network, tmp_path), first)
    assert len(network.asked) == 6
