"""Pictures of the documents: scripts of docs/assets, and grids with their records."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.commands import vary

DOCS = Path(__file__).parents[2] / "docs"
ASSETS = DOCS / "assets"


@pytest.fixture
def base(tmp_path):
    """A base's folder with a curve of forty reports."""
    folder = tmp_path / "toy"
    folder.mkdir()
    rows = [f"{50 * n}\t{1 / n:.4g}\t0.5\t{0.001 * n / 40:.4g}" for n in range(1, 41)]
    (folder / "curve.tsv").write_text("\n".join(["step\tloss\tgradient_norm\trate", *rows]))
    about = {"base": {"training": {"batch_images": 32}}}
    (folder / "base.json").write_text(json.dumps(about))
    return folder


def test_a_curve_has_axes_with_units_and_what_the_file_holds(base, tmp_path, monkeypatch):
    script = ASSETS / "base_curve.py"
    names = runpy.run_path(str(script))

    loss, rate = names["drawn"](base).axes
    line, median = loss.lines

    assert line.get_xdata().tolist() == [50 * n for n in range(1, 41)]
    assert line.get_ydata()[0] == 1
    assert median.get_ydata()[20] == pytest.approx(
        1 / 21, rel=1e-3
    )  # of a falling curve: itself
    assert "[latent units²]" in loss.get_ylabel()
    assert rate.get_xlabel() == "optimizer step, of 32 images each"
    monkeypatch.setattr(sys, "argv", ["base_curve.py", str(base), "--out", str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    with Image.open(tmp_path / "curve-toy.webp") as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_a_running_median_by_hand():
    median = runpy.run_path(str(ASSETS / "base_curve.py"))["running_median"]

    assert median(np.array([1.0, 9.0, 2.0, 3.0]), 3).tolist() == [5, 2, 3, 2.5]


def test_the_page_of_grids_says_what_their_records_say():
    page = DOCS / "parameters.md"
    content = page.read_text(encoding="utf-8")

    varied = vary.in_document(page)
    assert len(varied) == 5
    for one in varied:
        picture = Path("pictures") / f"{one.name}.webp"
        told = json.loads((DOCS / picture.with_suffix(".json")).read_text(encoding="utf-8"))
        assert told["varied"] == one.text
        text = vary.markdown(told, picture.as_posix())
        assert vary.documented(page, one.text, text) == content, (
            "run `atelier vary --document docs/parameters.md --out docs/pictures`"
        )
