import numpy as np
import pytest
import torch

from atelier.criteria import tree
from atelier.errors import ParamsError
from atelier.models import adapters
from atelier.session import Session

CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  light: {positive: clear light, negative: dull light, positive_means: "Bright.",
          negative_means: "Gray.", applies: any, sources: [],
          measure: {name: value_range, positive_at: 70, negative_at: 68.5}}
"""


@pytest.fixture
def session(studio, tmp_path):
    (tmp_path / "c.yaml").write_text(CRITERIA)
    return Session(studio, tree.parse(tmp_path / "c.yaml"))


def square(low, high, side=32):
    pixels = np.full((side, side, 3), low, np.uint8)
    pixels[:, side // 2 :] = high
    return pixels


def pictures(session):
    bright, dull = square(0, 255), square(100, 140)
    return [session.judged(one, f"a sea {n}") for n, one in enumerate([bright, dull] * 2)]


def test_a_picture_is_judged_by_the_measures_from_pixels_or_a_file(session, paint, tmp_path):
    bright, dull, *_ = pictures(session)
    file = session.judged(paint(tmp_path / "a.png", size=(64, 48)), "a sea")

    assert (bright.positive, bright.negative) == (("light",), ())
    assert (dull.positive, dull.negative) == ((), ("light",))
    assert file.pixels.shape == (32, 32, 3)


def test_theta_is_trained_painted_saved_and_read_again(session, tmp_path):
    found = pictures(session)
    seen = []

    first = session.fine_tune(found, steps=2, report=lambda done, _: seen.append(done))
    last = session.align(found, "cpo-s", steps=2)
    base, theta = (session.paint(["a sea"], [0], state=s) for s in (None, "cpo-s"))
    session.save("cpo-s", tmp_path / "lora")
    session.load("again", tmp_path / "lora")

    assert seen == [1, 2]
    assert first["loss"] > 0
    assert {"loss", "drift"} <= last.keys()
    assert base[0].shape == theta[0].shape == (32, 32, 3)
    np.testing.assert_array_equal(session.paint(["a sea"], [0], state="again")[0], theta[0])
    changed = adapters.weights(session.painter.network, "cpo-s")
    assert any(key.endswith("lora_B.cpo-s.weight") and w.any() for key, w in changed.items())


def test_the_prompts_of_a_picture_are_those_of_the_stages(session):
    roles = session._roles(pictures(session)[:2])

    assert roles["caption"] == [["a sea 0"], ["a sea 1"]]
    assert roles["labelled"] == [["a sea 0, clear light"], ["a sea 1"]]
    assert roles["flipped"] == [["a sea 0, clear light"], ["a sea 1, clear light"]]
    assert roles["loser"] == [["a sea 0"], ["a sea 1, dull light"]]
    allowed = {"a sea 1", "a sea 1, dull light"}
    assert len(roles["variants"][1]) == session.profile.sft.prompt_variants
    assert set(roles["variants"][1]) <= allowed


def test_the_same_training_gives_the_same_weights(studio, session):
    weights = []
    for one in (session, Session(studio, session.criteria)):
        one.fine_tune(pictures(one), steps=2)
        weights.append(adapters.weights(one.painter.network, "theta1"))

    for key, parameter in weights[0].items():
        torch.testing.assert_close(parameter, weights[1][key])


def test_what_a_session_cannot_do_is_refused_in_a_sentence(session):
    found = pictures(session)

    with pytest.raises(ParamsError, match="needs θ1"):
        session.align(found, "cpo-s")
    with pytest.raises(
        ParamsError, match=r"objective 'npo' is none of cpo\.objectives: cpo-s, cpo"
    ):
        session.align(found, "npo")
    with pytest.raises(ParamsError, match="no state 'theta'; trained in this session: none"):
        session.paint(["a sea"], [0], state="theta")
    with pytest.raises(ParamsError, match="needs pictures"):
        session.fine_tune([])


def test_a_base_is_found_beside_params_from_any_folder(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)

    opened = Session.open(tmp_path / "params/toy.yaml")

    assert opened.criteria.domain == "toy"
    assert opened.painter.component == "transformer"
