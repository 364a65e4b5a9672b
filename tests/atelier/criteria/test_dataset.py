import csv
import os

import pytest

from atelier.criteria import dataset
from atelier.criteria.annotations import Quarantined
from atelier.errors import ArtifactError


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for file in ("b.png", "a.png", "deep/c.jpg", ".hidden.png", ".git/x.png"):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read here")
    return folder


def table(data, *rows, header=("file", "caption"), name="captions.csv"):
    with (data / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_files_are_sorted_and_hidden_ones_ignored(data):
    found = dataset.find(data, None)

    assert [entry.file for entry in found.entries] == ["a.png", "b.png", "deep/c.jpg"]
    assert found.quarantined == []


def test_without_a_table_the_words_of_the_name_are_the_caption(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a_still-life  in_blue.png", "Нарцисс à l'étang.png", "___.png"):
        (folder / name).touch()

    found = dataset.find(folder, None)

    assert {entry.caption for entry in found.entries} == {
        "a still life in blue",
        "Нарцисс à l étang",
    }
    assert found.quarantined == [Quarantined(file="___.png", reason="its caption is empty")]


def test_captions_come_from_the_table_and_its_other_columns_are_ignored(data):
    header = ("year", "file", "caption", "artwork")
    table(
        data,
        (1901, "a.png", "a pond,  at\nnoon", ""),
        (1902, "./deep/c.jpg", 'called "Dawn"', "dawn"),
        (1903, "b.png", "a hill", "dawn"),
        header=header,
    )

    found = dataset.find(data, "captions.csv")

    assert found.entries == [
        dataset.Entry("a.png", "a pond, at noon", "a", "a"),
        dataset.Entry("b.png", "a hill", "b", "dawn"),
        dataset.Entry("deep/c.jpg", 'called "Dawn"', "c", "dawn"),
    ]
    assert found.quarantined == []


def test_jsonl_says_the_same_as_csv(data):
    rows = [("a.png", "a pond"), ("b.png", "a hill"), ("deep/c.jpg", "dawn")]
    table(data, *rows)
    from_csv = dataset.find(data, "captions.csv")
    (data / "captions.csv").unlink()
    (data / "captions.jsonl").write_text(
        "".join(f'{{"file": "{f}", "caption": "{c}", "year": 1900}}\n' for f, c in rows)
    )

    assert dataset.find(data, "captions.jsonl") == from_csv


def test_what_table_and_folder_do_not_share_is_set_aside(data):
    table(data, ("a.png", "a pond"), ("gone.png", "a hill"), ("b.png", "  "))

    found = dataset.find(data, "captions.csv")

    assert [entry.file for entry in found.entries] == ["a.png"]
    assert {one.file: one.reason for one in found.quarantined} == {
        "gone.png": "captions.csv, line 3 names it; it is not there",
        "deep/c.jpg": "captions.csv has no row for it",
        "b.png": "its caption is empty",
    }


def test_a_name_is_found_in_either_spelling_of_its_accents(data):
    (data / "e\u0301tang.png").touch()  # e and an accent, as macOS writes it
    table(data, ("\u00e9tang.png", "a pond"))

    assert dataset.find(data, "captions.csv").entries[0].caption == "a pond"


def test_a_byte_order_mark_is_no_part_of_the_header(data):
    (data / "captions.csv").write_text("file,caption\na.png,a pond\n", encoding="utf-8-sig")

    assert dataset.find(data, "captions.csv").entries[0].caption == "a pond"


def test_a_name_that_is_not_utf8_is_set_aside(data):
    (data / os.fsdecode(b"caf\xe9.png")).touch()

    found = dataset.find(data, None)

    assert found.quarantined == [
        Quarantined(file="caf\\xe9.png", reason="its name is not UTF-8; rename it")
    ]


def test_a_linked_folder_is_followed_and_a_circle_of_links_ends(data, tmp_path):
    museum = tmp_path / "museum"
    museum.mkdir()
    (museum / "m.png").touch()
    (data / "museum").symlink_to(museum)
    (museum / "back").symlink_to(data)

    files = [entry.file for entry in dataset.find(data, None).entries]

    assert files == ["a.png", "b.png", "deep/c.jpg", "museum/m.png"]


def test_an_absent_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"is absent; `atelier data` draws .*dvc add"):
        dataset.find(tmp_path / "data", None)


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / ".gitignore").touch()

    with pytest.raises(ArtifactError, match=r"holds no pictures; `atelier data`"):
        dataset.find(folder, None)


def test_a_folder_with_nothing_but_the_table_is_empty(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    table(folder, ("a.png", "a pond"))

    with pytest.raises(ArtifactError, match="holds no pictures"):
        dataset.find(folder, "captions.csv")


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "data").touch()

    with pytest.raises(ArtifactError, match="is not a folder"):
        dataset.find(tmp_path / "data", None)


def test_an_absent_table_names_the_param(data):
    with pytest.raises(
        ArtifactError, match=r"captions.csv is no file; annotate.captions names"
    ):
        dataset.find(data, "captions.csv")


@pytest.mark.parametrize("table", ["../captions.csv", "/etc/passwd", "deep/../../x.csv"])
def test_a_table_outside_of_the_folder_is_refused(data, table):
    with pytest.raises(ArtifactError, match=r"annotate.captions should be a file inside"):
        dataset.find(data, table)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,caption\na.png,Café\n".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xe9\)"),
        (b"", "should have the columns file and caption"),
        (b"file;caption\na.png;x\n", r"its first line is 'file;caption'"),
        (b"name,caption\na.png,x\n", r"its first line is 'name,caption'"),
        (b"file,caption\na.png,x, y\n", r"line 2: 3 columns, the header has 2; quote"),
        (b'file,caption\na.png,"x\nb.png,y\n', r"line 3: unexpected end of data; is a quote"),
        (b"file,caption\n,x\n", "line 2: file is empty"),
        (
            b"file,caption\na.png,x\n./a.png,y\n",
            r"line 3: './a.png' stands already in line 2",
        ),
    ],
)
def test_a_broken_csv_says_which_line_and_what_to_do(data, content, says):
    (data / "captions.csv").write_bytes(content)

    with pytest.raises(ArtifactError, match=says):
        dataset.find(data, "captions.csv")


def test_a_broken_jsonl_names_every_broken_line(data):
    lines = ['{"file": "a.png", "caption": "x"}', "{", "[]", '{"file": 3, "caption": "x"}', ""]
    (data / "captions.jsonl").write_text("\n".join(lines))

    with pytest.raises(ArtifactError) as caught:
        dataset.find(data, "captions.jsonl")

    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "line 2: not JSON, Expecting property name enclosed in double quotes at column 2",
        "line 3: should hold the texts 'file' and 'caption'",
        "line 4: should hold the texts 'file' and 'caption'",
    ]


def test_a_message_shows_ten_mistakes_and_counts_the_rest(data):
    (data / "captions.csv").write_text("file,caption\n" + "a,b,c\n" * 12)

    with pytest.raises(ArtifactError, match=r"line 11: 3 columns.*\n  and 2 more$"):
        dataset.find(data, "captions.csv")


def test_where_captions_will_be_written_none_need_be_there(data):
    table(data, ("a.png", "a pond"), ("b.png", " "), ("deep/c.jpg", ""))

    found = dataset.find(data, "captions.csv", captionless=True)

    assert [(entry.caption, entry.title) for entry in found.entries] == [
        ("a pond", "a"),
        ("", "b"),
        ("", "c"),
    ]
    (data / "captions.csv").unlink()
    unnamed = dataset.find(data, None, captionless=True)
    assert [(entry.caption, entry.title) for entry in unnamed.entries] == [
        ("", "a"),
        ("", "b"),
        ("", "c"),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[" * 100_000, "nested too deeply"),
        (f'{{"file": "a.png", "caption": {"1" * 5000}}}', "line 1: not JSON that can be read"),
        (r'{"file": "a.png", "caption": "\ud800"}', "half of a character"),
        (r'{"file": "a.png", "caption": "a\u001b[31m"}', "has control characters"),
        ('{"file": "a.png", "caption": "a", "artwork": {}}', "should hold the texts"),
    ],
)
def test_a_caption_is_what_a_file_can_hold(data, line, says):
    (data / "captions.jsonl").write_text(line)

    with pytest.raises(ArtifactError, match=says):
        dataset.find(data, "captions.jsonl")


def test_a_pipe_or_a_device_among_the_pictures_is_set_aside_unopened(data):
    os.mkfifo(data / "pipe.png")
    (data / "zero.png").symlink_to("/dev/zero")

    found = dataset.find(data, None)

    assert [entry.file for entry in found.entries] == ["a.png", "b.png", "deep/c.jpg"]
    assert found.quarantined == [
        Quarantined(file=file, reason="it is no ordinary file")
        for file in ("pipe.png", "zero.png")
    ]
