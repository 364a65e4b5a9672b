"""``atelier dials``: trained once, turned to both sides, measured against no dial."""

import json

import numpy as np
import pytest

from atelier.errors import ArtifactError, ParamsError
from atelier.metrics.statistics import Interval
from atelier.models import adapters
from atelier.reports import dials_page
from atelier.reports.dials_page import Measured, Turned
from tasks import sft
from tasks.commands import dials
from tasks.commands.dials import Wish
from tasks.run import paths
from tasks.training import dials as training

END = "<!-- end of dials -->"


@pytest.fixture
def taught(gallery, notebook, monkeypatch):
    """A studio with θ1 and a test part, whose criteria are two roots of one leaf each."""
    monkeypatch.setattr(training, "FEWEST", 4)
    sft.run(gallery, notebook)
    return gallery


def wish(out, **changes):
    usual = {"model": "base", "roots": [], "steps": 2, "share": 1.0, "pictures": 4, "out": out}
    return Wish(**usual | changes)


def test_dials_are_trained_once_and_their_matrix_is_measured(taught, tmp_path, capsys):
    document = tmp_path / "guide.md"
    document.write_text(f"<!-- dials: toy -->\nold\n{END}\ndials of another\n")

    page = dials.run(taught, wish(tmp_path / "m", document=document))

    assert sorted(one.name for one in paths.DIALS.iterdir()) == ["edges", "light"]
    first = {
        one: (paths.DIALS / one / adapters.FILE).read_bytes() for one in ("edges", "light")
    }
    assert len(set(first.values())) == 2
    said = json.loads((tmp_path / "m" / "dials.json").read_text())
    turned = said["judges"]["measured-1"]
    assert [(one["root"], one["share"]) for one in turned] == [
        ("edges", 1.0), ("edges", -1.0), ("light", 1.0), ("light", -1.0)
    ]  # fmt: skip
    for one in turned:
        assert list(one["moved"]) == ["edges", "light"]
        assert one["moved"]["light"]["low"] <= one["moved"]["light"]["high"]
    assert set(said["judges"]) == {"measured-1", "starter-features-1"}
    shown = page.read_text()
    assert shown.count("<img") == 2 * 5 * 3  # roots, shares, captions
    text = document.read_text()
    assert "| edges +1 | " in text
    assert "dials of another" in text
    assert f"(guide-toy.png)\n\n{END}\n" in text
    assert (tmp_path / "guide-toy.png").read_bytes() == (tmp_path / "m/dials.png").read_bytes()
    assert "<script" not in shown
    capsys.readouterr()

    dials.run(taught, wish(tmp_path / "n", roots=["light"]))

    assert "dial light: unchanged, kept" in capsys.readouterr().err
    for one, content in first.items():
        assert (paths.DIALS / one / adapters.FILE).read_bytes() == content


def test_a_dial_learns_of_its_own_root_alone(taught):
    from atelier.criteria import annotations

    records = annotations.read(paths.SPLIT / "train.jsonl", annotations.Record)
    active = [{*one.positive, *one.negative} for one in records]

    narrow = training.narrowed(records * 3, "light")[: len(records)]

    for one, every in zip(narrow, active, strict=True):
        assert one.positive == []
        assert set(one.negative) == {path for path in every if path == "light"}


def test_what_cannot_be_trained_says_why(taught, tmp_path, monkeypatch):
    with pytest.raises(ParamsError, match="--root 'sound' is no root of the criteria"):
        dials.run(taught, wish(tmp_path, roots=["sound"]))

    with pytest.raises(ParamsError, match="has no place for the dials of toy"):
        dials.run(taught, wish(tmp_path, document=tmp_path / "absent.md"))

    monkeypatch.setattr(training, "FEWEST", 1000)
    with pytest.raises(ArtifactError, match="training pictures show anything of 'edges'"):
        dials.run(taught, wish(tmp_path))


def test_a_matrix_as_markdown_by_hand():
    moved = {"light": {"estimate": 0.5, "low": 0.25, "high": 0.75},
             "space": {"estimate": -0.125, "low": -0.5, "high": 0.25}}  # fmt: skip
    told = {"model": "base", "steps": 9, "share": 1.0, "pictures": 4, "captions": 3,
            "judges": {"a": [{"root": "light", "share": -1.0, "moved": moved}]}}  # fmt: skip

    assert dials.markdown(told).splitlines()[-3:] == [
        "| by a | light | space |",
        "|---|---|---|",
        "| light −1 | **+0.50** [+0.25, +0.75] | −0.12 [−0.50, +0.25] |",
    ]
    moved["space"] = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    assert dials.markdown(told).endswith("| none changed |")


def test_the_summary_of_a_matrix_by_hand():
    def moved(own, other):
        return {
            "light": Interval(own, own, own, 4), "space": Interval(other, other, other, 4)
        }  # fmt: skip

    found = Measured(
        "a", [Turned("light", 1.0, moved(0.5, -0.1)), Turned("light", -1.0, moved(-0.7, 0.3))]
    )

    assert found.own() == pytest.approx(0.6)
    assert found.others() == pytest.approx(0.2)
    html = dials_page.render(
        [found],
        {"light": {0.0: [np.zeros((4, 4, 3), np.uint8)]}},
        ["<b>a sea</b>"],
        {"light": "Light", "space": "Space"},
        model="base",
        captions=4,
        steps=2,
        share=1.0,
    )
    assert "<b>a sea" not in html
    assert "−0.70" in html
    assert html.count('class="own sure"') == 2
