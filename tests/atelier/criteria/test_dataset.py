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
        (b"file;caption\na.png;x\n", "with a semicolon in it"),
        ("file\uff0ccaption\n".encode(), r"with FULLWIDTH COMMA \(U\+FF0C\) in it"),
        (b"file,File,caption\na.png,b.png,x\n", "line 1: the column file stands twice"),
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
    lines = [
        '{"file": "a.png", "caption": "x"}',
        "{",
        "[]",
        '{"file": "b", "caption": {"de": "x"}}',
        "",
    ]
    (data / "captions.jsonl").write_text("\n".join(lines))

    with pytest.raises(ArtifactError) as caught:
        dataset.find(data, "captions.jsonl")

    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "line 2: not JSON, Expecting property name enclosed in double quotes at column 2",
        "line 3: should be an object that names its cells, is []",
        "line 4: caption should be a text, is {'de': 'x'}",
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
        ('{"file": "a.png", "caption": "a", "artwork": {}}', "artwork should be a text, is {}"),
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


def entries(data, captions, **options):
    found = dataset.find(data, captions, **options)
    return {entry.file: (entry.caption, entry.artwork) for entry in found.entries}


def aside(data, captions, **options):
    found = dataset.find(data, captions, **options)
    return {one.file: one.reason for one in found.quarantined}


JSON_LINES = """{"file": "a.png", "caption": "a pond"}
{"file": "b.png", "caption": "a hill"}"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", " File , CAPTION\na.png, a pond\n,\n  , \nb.png,a hill\n"),
        ("captions.csv", "sep=,\r\nfile,caption\r\na.png,a pond\r\nb.png,a hill\r\n"),
        ("captions.csv", "sep=;\r\nfile;caption\r\na.png;a pond\r\nb.png;a hill\r\n"),
        ("captions.csv", "file,caption,,\na.png,a pond,,\nb.png,a hill,,\n"),
        ("captions.tsv", "file\tcaption\na.png\ta pond\nb.png\ta hill\n"),
        ("captions", "\u200bfile,caption\u200b\na.png,a pond\nb.png,a hill\n"),
        ("captions.JSONL", JSON_LINES),
        ("captions.ndjson", JSON_LINES.replace("file", "File").replace("caption", " CAPTION")),
        ("captions.json", JSON_LINES),
        ("captions.txt", JSON_LINES),
        ("captions.Json", "[" + JSON_LINES.replace("\n", ",\n") + "]"),
    ],
)  # fmt: skip
def test_content_and_not_spelling_decides_what_a_table_is(data, name, content):
    (data / name).write_text(content)

    assert entries(data, name) == {"a.png": ("a pond", "a"), "b.png": ("a hill", "b")}


def test_names_are_compared_in_one_spelling(data):
    (data / "e\u0301.png").touch()
    (data / "o\u0308/deep").mkdir(parents=True)
    (data / "o\u0308/deep/x.png").touch()
    table(
        data,
        (" ./a.png ", "a pond", "Nymph\u00e9as"),
        ("b.png", "a hill", "Nymphe\u0301as "),
        ("\u00e9.png", "dawn", ""),
        ("\u00f6\\deep\\x.png", "dusk", "\u00e9"),
        header=("file", "caption", "artwork"),
    )

    assert entries(data, "captions.csv") == {
        "a.png": ("a pond", "Nymph\u00e9as"),
        "b.png": ("a hill", "Nymph\u00e9as"),
        "e\u0301.png": ("dawn", "\u00e9"),
        "o\u0308/deep/x.png": ("dusk", "\u00e9"),
    }


def test_a_blank_artwork_is_none(data):
    table(
        data, ("a.png", "x", " "), ("b.png", "y", "\t"), header=("file", "caption", "artwork")
    )

    assert entries(data, "captions.csv") == {"a.png": ("x", "a"), "b.png": ("y", "b")}


@pytest.mark.parametrize(
    ("value", "artwork"),
    [("0", "0"), ("false", "false"), ("1.0", "1.0"), ("7", "7"), ("null", None), ('""', None)],
)
def test_a_cell_of_json_is_the_text_of_its_value(data, value, artwork):
    lines = [f'{{"file": "{name}.png", "caption": "x", "artwork": {value}}}' for name in "ab"]
    (data / "captions.jsonl").write_text("\n".join(lines))

    assert entries(data, "captions.jsonl") == {
        "a.png": ("x", artwork or "a"),
        "b.png": ("x", artwork or "b"),
    }


def test_a_caption_may_be_a_number_and_null_is_none(data):
    lines = [
        '{"file": "a.png", "caption": null}', '{"file": "b.png", "caption": 1984}',
        '{"file": null, "caption": null}', "{}", '{"file": "deep/c.jpg"}',
    ]  # fmt: skip
    (data / "captions.jsonl").write_text("\n".join(lines))

    assert entries(data, "captions.jsonl") == {"b.png": ("1984", "b")}
    assert aside(data, "captions.jsonl") == {
        "a.png": "its caption is empty",
        "deep/c.jpg": "its caption is empty",
    }


def test_a_row_with_a_caption_and_no_file_is_named(data):
    (data / "captions.jsonl").write_text('{"caption": "x"}\n{"file": "a.png", "caption": "x"}')

    with pytest.raises(ArtifactError, match="line 1: file is empty"):
        dataset.find(data, "captions.jsonl")


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".TXT", ".png.txt"])
def test_a_text_beside_a_picture_is_its_caption(data, suffix):
    (data / f"a{suffix}").write_text("\ufeff a  pond\n\n", encoding="utf-8")
    (data / "deep/c.txt").write_text("dusk")

    found = dataset.find(data, None)

    assert entries(data, None) == {"a.png": ("a pond", "a"), "deep/c.jpg": ("dusk", "deep/c")}
    assert aside(data, None) == {
        "b.png": "it has no caption file, such as b.txt; other pictures have"
    }
    assert (found.source, found.notes) == ("caption files", ())
    assert entries(data, None, captionless=True)["b.png"] == ("", "b")


def test_a_caption_file_is_found_in_either_spelling_of_its_accents(data):
    (data / "e\u0301tang.png").touch()
    (data / "\u00e9tang.txt").write_text("a pond")

    assert entries(data, None) == {"e\u0301tang.png": ("a pond", "\u00e9tang")}


def test_of_two_caption_files_one_counts_and_the_other_is_named(data):
    (data / "a.txt").write_text("a pond")
    (data / "a.caption").write_text("a lake")
    (data / "README.txt").write_text("about these pictures")

    assert entries(data, None) == {"a.png": ("a pond", "a")}
    found = aside(data, None)
    assert found["a.caption"] == "a.txt counts"
    assert found["README.txt"] == "a text without a picture of its name"


def test_the_first_line_of_a_caption_file_is_the_caption_and_others_are_mentioned(data):
    (data / "a.txt").write_text("\na pond\na lake\n")

    found = dataset.find(data, None)

    assert found.entries[0].caption == "a pond"
    assert found.notes == (
        "1 caption files have several lines, such as a.txt; the first line is the caption",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"  \n", "its caption is empty"),
        (b"caf\xe9", "its caption file a.txt, line 1 is not UTF-8 (byte 0xe9); open it in the "
                    "program that wrote it and save it as UTF-8"),
        (b"a\x1b[31m", "the caption in a.txt has control characters"),
    ],
)  # fmt: skip
def test_a_caption_file_that_cannot_be_used_sets_its_picture_aside(data, content, reason):
    (data / "a.txt").write_bytes(content)
    (data / "b.txt").write_text("a hill")

    assert aside(data, None)["a.png"] == reason


def test_a_table_counts_before_caption_files(data):
    (data / "a.txt").write_text("from the text")
    table(data, ("a.png", "from the table"))

    assert entries(data, "captions.csv") == {"a.png": ("from the table", "a")}
    assert aside(data, "captions.csv") == {
        "a.txt": "a caption file; captions.csv counts",
        "b.png": "captions.csv has no row for it",
        "deep/c.jpg": "captions.csv has no row for it",
    }


def test_without_captions_a_table_is_no_picture(data):
    (data / "metadata.jsonl").touch()

    assert set(entries(data, None)) == {"a.png", "b.png", "deep/c.jpg"}
    assert "annotate.captions may name it" in aside(data, None)["metadata.jsonl"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_hugging_faces_columns_are_read(data, name):
    rows = [("a.png", "a pond"), ("deep/c.jpg", "dusk")]
    if name.endswith("csv"):
        table(data, *rows, header=("file_name", "text"), name=name)
    else:
        lines = [
            f'{{"file_name": "{f}", "text": "{t}", "objects": {{"id": [1]}}}}' for f, t in rows
        ]
        (data / name).write_text("\n".join(lines))

    assert entries(data, name) == {"a.png": ("a pond", "a"), "deep/c.jpg": ("dusk", "deep/c")}


def test_a_table_in_each_folder_speaks_of_the_files_beside_it(data):
    for folder, file in (("train", "t.png"), ("test/x", "u.png")):
        (data / folder).mkdir(parents=True)
        (data / folder / file).touch()
        (data / folder / "metadata.csv").write_text(f"file_name,text\n{file},{folder}\n")

    assert entries(data, "metadata.csv") == {
        "test/x/u.png": ("test/x", "test/x/u"),
        "train/t.png": ("train", "train/t"),
    }


def test_a_table_that_is_named_in_a_folder_means_file_from_the_top(data):
    table(data, ("deep/c.jpg", "dusk"), name="deep/captions.csv")
    table(data, ("c.jpg", "dusk"), header=("file_name", "text"), name="deep/metadata.csv")

    assert entries(data, "deep/captions.csv") == {"deep/c.jpg": ("dusk", "deep/c")}
    assert entries(data, "deep/metadata.csv") == {"deep/c.jpg": ("dusk", "deep/c")}


def test_a_packed_data_set_is_named_with_the_cure(tmp_path):
    (tmp_path / "train.parquet").touch()

    with pytest.raises(
        ArtifactError, match=r"train\.parquet is a packed .*`atelier data unpack`"
    ):
        dataset.find(tmp_path, None)
