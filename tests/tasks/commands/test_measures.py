from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atelier.criteria.tree import parse
from cli.app import app
from tasks.commands import criteria, measures

ROOT = Path(__file__).parents[3]
TREE = """
domain: painting
version: "1"
literature: {}
criteria:
  light:
    positive: strong values
    negative: flat values
    positive_means: Far apart.
    negative_means: Close.
    applies: any
    sources: []
    # kept as it is
    measure: {name: value_range, positive_at: 2, negative_at: 1}
  busy:
    positive: few things
    negative: many things
    positive_means: Few.
    negative_means: Many.
    applies: any
    sources: []
    measure: {name: clutter, positive_at: 0.1, negative_at: 0.2}  # fixed: by reason
"""


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """A criteria file and a folder of 24 pictures, the value range of each wider by 8."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.yaml").write_text(TREE)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params").mkdir()
    (tmp_path / "pictures").mkdir()
    for index in range(24):
        grey = np.full((64, 64, 3), 20, np.uint8)
        grey[:, 32:] = 28 + 8 * index
        Image.fromarray(grey).save(tmp_path / "pictures" / f"{index:02}.png")
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, ["criteria", *map(str, words)])


def test_thresholds_are_proposed_and_written_only_when_asked(gallery):
    result = invoke("calibrate", "pictures", "tree.yaml")

    assert result.exit_code == 0, result.output
    assert "value_range" in result.output
    assert (gallery / "tree.yaml").read_text() == TREE

    assert invoke("calibrate", "pictures", "tree.yaml", "--write").exit_code == 0

    written = (gallery / "tree.yaml").read_text()
    light = parse(gallery / "tree.yaml").leaves()["light"].measure
    assert 60 < light.positive_at < 90
    assert 10 < light.negative_at < 30
    assert "# kept as it is" in written
    assert "positive_at: 0.1, negative_at: 0.2}  # fixed: by reason" in written


def test_each_pair_gets_a_sheet_and_all_a_table(gallery):
    result = invoke("sheets", "pictures", "out", "tree.yaml")

    assert result.exit_code == 0, result.output
    assert {file.name for file in (gallery / "out").iterdir()} == {
        "light.png",
        "busy.png",
        "measures.md",
    }
    table = (gallery / "out" / "measures.md").read_text()
    assert "| `light` | value_range | 1.00 | 1.00 | 0.00 | 0.00 |" in table
    with Image.open(gallery / "out" / "light.png") as sheet:
        best, worst = (np.asarray(sheet)[row, 140] for row in (100, 500))
    assert best.mean() > 200 > 128 > worst.mean()  # the lightest halves, and the darkest


def test_a_folder_without_pictures_is_one_sentence(gallery):
    result = invoke("sheets", "nowhere", "out", "tree.yaml")

    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.output


def test_a_measure_that_is_spread_over_lines_is_not_rewritten(gallery):
    (gallery / "tree.yaml").write_text(
        TREE.replace(
            "measure: {name: value_range, positive_at: 2, negative_at: 1}",
            "measure:\n      {name: value_range, positive_at: 2,\n      negative_at: 1}",
        )
    )

    result = invoke("calibrate", "pictures", "tree.yaml", "--write")

    assert result.exit_code == 2
    assert "on a line of its own" in result.stderr


def test_the_guide_shows_the_measures_as_they_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    guide = (ROOT / "docs/measures.md").read_text(encoding="utf-8")

    assert criteria.documented(guide) == guide, (
        "run `atelier criteria document docs/measures.md`"
    )


def test_every_measured_pair_of_painting_can_be_rewritten():
    text = (ROOT / "params/criteria/painting.yaml").read_text(encoding="utf-8")

    assert len(measures.MEASURE_LINE.findall(text)) >= 40
