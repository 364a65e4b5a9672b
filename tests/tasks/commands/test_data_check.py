import json

import pytest

from atelier.config.profile import Profile
from atelier.criteria import dataset
from atelier.errors import ArtifactError
from tasks.commands import data_check


@pytest.fixture
def check(tmp_path, profile, capsys):
    def check(captions=None):
        params = Profile.model_validate(profile).annotate
        data_check.run(tmp_path, params, captions)
        return capsys.readouterr().out

    return check


def test_a_folder_of_another_trainer_is_described(tmp_path, paint, check):
    for number, name in enumerate(("a.png", "10_sea/b.jpg", "10_sea/c.webp")):
        paint(tmp_path / name, number)
    (tmp_path / "a.txt").write_text("a calm sea")
    (tmp_path / "10_sea/b.txt").write_text("a city\nby night")
    paint(tmp_path / "tiny.png", 9, size=(8, 40))
    (tmp_path / "tiny.txt").write_text("small")
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "half.txt").write_text("half")
    (tmp_path / ".DS_Store").touch()

    said = check()

    assert f"{tmp_path}: caption files beside the pictures\n" in said
    assert (
        "annotate.captions: null; the profile in force has annotate.captions: captions.csv"
        in said
    )
    assert "pictures   2\n" in said
    assert "captions   2, 2 different\n" in said
    assert "artworks   2\n" in said
    assert "set aside  3\n" in said
    assert "1 10_sea/c.webp: it has no caption file, such as 10_sea/c.txt" in said
    assert "1 tiny.png: 8 x 40 pixels; its shorter side is below" in said
    assert "1 half.png: " in said
    assert "hidden     1 files begin with a dot" in said
    assert "1 caption files have several lines" in said
    assert "    a.png: 'a calm sea'\n" in said


def test_reasons_that_differ_in_a_name_are_counted_together(tmp_path, paint, check):
    for number in range(30):
        paint(tmp_path / f"{number}.png", number)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "7.png", "text": "seven"}')

    said = check()

    assert "Hugging Face ImageFolder, metadata.jsonl\n" in said
    assert "set aside  29\n        29 0.png: metadata.jsonl has no row for it\n" in said
    assert "also there file names (annotate.captions: null)" in said


def test_a_table_can_be_tried(tmp_path, paint, check):
    paint(tmp_path / "a.png")
    (tmp_path / "other.csv").write_text("file,caption\na.png\n")

    with pytest.raises(ArtifactError, match="line 2: 1 columns, the header has 2"):
        check("other.csv")


def test_captions_that_a_model_will_write_are_counted(tmp_path, paint, profile, vlm, check):
    profile["annotate"] |= {"annotator": "vlm", "vlm": vlm}
    paint(tmp_path / "a.png")

    assert "captions   0, 0 different; a model writes 1\n" in check()


def test_a_table_that_cannot_be_read_is_named_with_the_reason(tmp_path, paint, check):
    paint(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file;caption\na.png;a calm sea\n")
    (tmp_path / "excel.csv").write_text("file,caption\na.png,a calm sea\n", "utf-16")

    said = check()

    assert (
        "no table   captions.csv: it has no columns file and caption; its first line is" in said
    )
    assert "'file;caption', with a semicolon in it\n" in said
    assert "no table   excel.csv: line 1 is not UTF-8 (byte 0xff); open it" in said


def test_kohyas_metadata_name_pictures_with_and_without_suffix(tmp_path, paint, check):
    for number, name in enumerate(("a.png", "b.jpg", "c.png", "5/d.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        paint(tmp_path / name, number)
    rows = {
        "a": {"caption": "a calm sea", "train_resolution": [64, 64]},
        "b.jpg": {"caption": "a city", "tags": "night, lamps"},
        str(tmp_path / "c.png"): {"tags": "boat, reeds"},
        "5/d": {"caption": "a hill"},
        "gone": {"caption": "nothing"},
    }
    (tmp_path / "meta_cap.json").write_text(json.dumps(rows, indent=2))

    said = check()

    assert "kohya's metadata, meta_cap.json\n" in said
    assert "captions   4, 4 different\n" in said
    assert [line for line in said.splitlines() if line.startswith("    ") and "'" in line] == [
        "    5/d.png: 'a hill'", "    a.png: 'a calm sea'", "    b.jpg: 'a city'"
    ]  # fmt: skip
    corpus = dataset.find(tmp_path, "meta_cap.json", captionless=False)
    assert {one.file: one.caption for one in corpus.entries}["c.png"] == "boat, reeds"
    assert (
        "set aside  1\n         1 gone: meta_cap.json, line 5 names it; it is not there" in said
    )


def test_two_pictures_of_one_stem_are_not_guessed_between(tmp_path, paint, check):
    paint(tmp_path / "a.png", 1)
    paint(tmp_path / "a.jpg", 2)
    (tmp_path / "meta_cap.json").write_text('{"a": {"caption": "which?"}}')

    said = check()

    assert "pictures   0\n" in said
    assert "1 a: meta_cap.json, line 1 names it; it is not there" in said
