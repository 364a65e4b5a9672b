import json

import numpy as np
import pytest
import torch

from atelier.errors import ArtifactError
from atelier.metrics import fid
from atelier.reporting import silent
from atelier.starter import drawings as starter
from atelier.starter import feature_network
from atelier.starter.feature_network import Network, Vocabulary


@pytest.fixture(scope="module")
def drawings():
    return list(starter.sketchbook(24, seed=5))


@pytest.fixture(scope="module")
def trained(drawings):
    return feature_network.train(drawings, seed=0, steps=3, report=silent)


def test_its_heads_tell_apart_what_the_drawings_know(trained, drawings):
    assert set(trained.vocabulary.criteria) == set(starter.CRITERIA)
    assert set(trained.vocabulary.hues) <= set(starter.HUES)
    assert set(trained.vocabulary.subjects) <= set(starter.SUBJECTS)
    assert set(feature_network.accuracy(trained, drawings)) == {
        "subject",
        "hue",
        *starter.CRITERIA,
    }


def test_it_stays_small(trained):
    assert 100_000 < sum(p.numel() for p in trained.parameters()) < 300_000


def test_features_are_standardised_over_what_it_was_trained_on(trained, drawings):
    features = trained.features([drawing.pixels for drawing in drawings])

    assert features.shape == (24, 64)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0, ddof=1), 1, atol=1e-3)


def test_the_same_seed_trains_the_same_network(trained, drawings):
    again = feature_network.train(drawings, seed=0, steps=3, report=silent)

    for one, other in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_answer_does_not_depend_on_the_images_beside_it(trained, drawings):
    images = [drawing.pixels for drawing in drawings]

    together, alone = trained.features(images), trained.features(images[7:8])

    np.testing.assert_allclose(together[7], alone[0], atol=1e-3)


def test_pictures_of_other_sizes_are_resampled(trained, drawings):
    doubled = drawings[0].pixels.repeat(2, axis=0).repeat(2, axis=1)

    close = trained.features([drawings[0].pixels, doubled])

    assert np.abs(close[0] - close[1]).max() < 1


def test_it_abstains_unless_it_is_certain():
    network = Network(Vocabulary(("a",), ("b",), ("edges", "light", "depth")))
    # logits of (positive, negative, does not apply): certain, undecided, does not apply
    answers = torch.tensor([[0.0, 4.0, 0.0], [1.0, 0.9, 0.0], [0.0, 0.0, 9.0]])
    network.answers = lambda features: answers.expand(len(features), -1, -1)

    ((said,),) = [network.judge([np.zeros((128, 128, 3), np.uint8)])]

    assert [(path, pole) for path, pole, _ in said] == [("edges", "negative")]
    # e^4 / (e^4 + 2)
    assert said[0][2] == pytest.approx(np.exp(4) / (np.exp(4) + 2), rel=1e-5)


def test_written_and_read_it_says_the_same_to_half_precision(trained, drawings, tmp_path):
    feature_network.write(trained, tmp_path / "features", about={"steps": 3})

    read = feature_network.read(tmp_path / "features")

    images = [drawing.pixels for drawing in drawings]
    assert read.vocabulary == trained.vocabulary
    np.testing.assert_allclose(read.features(images), trained.features(images), atol=0.2)
    assert sum(f.stat().st_size for f in (tmp_path / "features").iterdir()) < 1_000_000


def test_it_serves_fid(trained, drawings):
    features = trained.features([drawing.pixels for drawing in drawings])

    distance = fid.distance(features, features, extractor=trained.name, seed=0)

    assert distance.fid == pytest.approx(0, abs=1e-2)
    assert distance.extractor == "starter-features-1 (64 features)"


def test_an_absent_network_names_its_file_and_the_command_that_trains_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"config\.json is absent; `atelier features`"):
        feature_network.read(tmp_path)


def test_another_version_of_the_network_is_refused(trained, tmp_path):
    feature_network.write(trained, tmp_path, about={})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"name": "starter-features-0"}))

    with pytest.raises(ArtifactError, match="starter-features-0"):
        feature_network.read(tmp_path)


def test_damage_keeps_shape_and_little_changes(drawings):
    pixels = torch.stack([torch.from_numpy(drawing.pixels) for drawing in drawings])
    components = feature_network._patch_components(pixels)
    scaled = feature_network._scaled(pixels)

    damaged = feature_network._damage(scaled, components, np.random.default_rng(0))

    assert damaged.shape == scaled.shape
    identity = components @ components.T
    torch.testing.assert_close(identity, torch.eye(len(components)), atol=1e-4, rtol=0)


def test_blur_of_a_constant_picture_changes_nothing():
    flat = torch.full((1, 3, 16, 16), 0.3)

    torch.testing.assert_close(feature_network._blurred(flat, 0.8), flat)
