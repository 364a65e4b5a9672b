from pathlib import Path

import pytest

from atelier.starter import drawings as starter
from tasks.commands import agreement

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def drawings():
    return list(starter.sketchbook(200, seed=21))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(agreement, "_CODEC_DRAWINGS", 200)


@pytest.mark.parametrize("coded", [False, True], ids=["as drawn", "after the codec"])
def test_the_annotator_sees_what_the_painter_meant(drawings, coded):
    pictures = [drawing.pixels for drawing in drawings]
    if coded:
        pictures, _ = agreement.through_codec(pictures)

    agreements = agreement.measure(drawings, pictures)

    assert set(agreements) == set(starter.CRITERIA)
    for criterion, one in agreements.items():
        assert one.share >= 0.85, criterion
        assert one.abstention <= 0.3, criterion
        assert one.second_alone <= 2, criterion


def test_the_codec_keeps_the_drawings(drawings):
    _, psnr = agreement.through_codec([drawing.pixels for drawing in drawings])

    assert psnr >= 31
