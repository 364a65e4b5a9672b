import csv
import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from atelier.errors import ArtifactError, DiskError
from atelier.starter import drawings
from tasks.commands import data

ROOT = Path(__file__).parents[3]
PAINTINGS = drawings.PAINTINGS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drawings, "PAINTINGS", 3)


def drawn():
    return sorted(path.name for path in Path("data").iterdir())


def test_where_nothing_is_the_starter_paintings_are_drawn(tmp_path):
    data.run()

    with Path("data/captions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = list(drawings.paintings(3, drawings.PAINTINGS_SEED))
    assert [row["caption"] for row in rows] == [drawing.caption for drawing in expected]
    for row, drawing in zip(rows, expected, strict=True):
        opened = np.asarray(Image.open(Path("data") / row["file"]))
        np.testing.assert_array_equal(opened, drawing.pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_the_painter_knows_is_not_in_data():
    data.run()

    assert [name for name in drawn() if not name.endswith(".png")] == ["captions.csv"]
    header, *_ = Path("data/captions.csv").read_text(encoding="utf-8").splitlines()
    assert header == "file,caption,artwork"


def test_a_second_run_changes_nothing(capsys):
    data.run()
    before = {path.name: path.read_bytes() for path in Path("data").iterdir()}

    data.run()

    assert {path.name: path.read_bytes() for path in Path("data").iterdir()} == before
    assert "left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["mine.jpg", "deep/in/folders.txt", ".hidden"])
def test_a_users_folder_is_never_touched(file):
    mine = Path("data") / file
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")

    data.run()

    assert [path for path in Path("data").rglob("*") if path.is_file()] == [mine]


def test_a_link_to_a_disk_that_is_away_is_never_touched():
    Path("data").symlink_to("/nowhere/paintings")

    data.run()

    assert Path("data").is_symlink()


def test_an_empty_folder_is_filled():
    Path("data/empty").mkdir(parents=True)

    data.run()

    assert len(drawn()) == 4


def test_paintings_that_somebody_else_pinned_are_not_replaced():
    Path("data.dvc").write_text("outs:\n- {md5: abc.dir, path: data}\n")

    with pytest.raises(ArtifactError, match=r"data\.dvc pins other .*abc\.dir.*dvc pull"):
        data.run()

    assert not Path("data").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(pixels):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drawings, "png", full)

    with pytest.raises(DiskError, match="the disk is full"):
        data.run()

    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_run_left_is_no_obstacle():
    Path(".data.partial").mkdir()
    Path(".data.partial/half.png").write_bytes(b"")

    data.run()

    assert len(drawn()) == 4
    assert not Path(".data.partial").exists()


def pinned():
    return yaml.safe_load((ROOT / "data.dvc").read_text(encoding="utf-8"))["outs"][0]["md5"]


@pytest.mark.slow
def test_drawing_again_gives_what_data_dvc_pins():
    if pinned() != data.STARTER_MD5:
        pytest.skip("data.dvc pins somebody's own paintings")

    data.draw(Path("data"), PAINTINGS, drawings.PAINTINGS_SEED)

    # DVC's own hash of a folder: the md5 of its sorted listing.
    listing = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted(Path("data").iterdir())
    ]
    digest = hashlib.md5(json.dumps(listing).encode()).hexdigest()
    assert f"{digest}.dir" == data.STARTER_MD5
