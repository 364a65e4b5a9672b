import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atelier.criteria import dataset, packed
from atelier.errors import ArtifactError
from tasks.commands import data_unpack


@pytest.fixture
def pictures(tmp_path, paint):
    return [
        paint(tmp_path / f"source/{n}.{s}", n) for n, s in enumerate(("png", "jpg", "webp"))
    ]


def arrow(file, table):
    """A file as ``save_to_disk`` of Hugging Face's library writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def parquet(file, table):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def table(pictures, **columns):
    held = [{"bytes": one.read_bytes(), "path": one.name} for one in pictures]
    return pa.table({"image": held, **columns})


@pytest.mark.parametrize(
    ("write", "name"),
    [(parquet, "data/train-00000-of-00001.parquet"), (arrow, "data-00000-of-00001.arrow")],
)
def test_a_packed_data_set_becomes_files_that_annotate_finds(
    pictures, tmp_path, write, name, capsys
):
    texts = ["a sea", "é, a city", None]
    write(tmp_path / "set" / name, table(pictures, text=texts, label=[1, 2, 3]))

    data_unpack.run(tmp_path / "set", tmp_path / "data", None, None)

    for one in pictures:
        assert (tmp_path / "data" / one.name).read_bytes() == one.read_bytes()
    found = dataset.find(tmp_path / "data", data_unpack.TABLE)
    assert {one.file: one.caption for one in found.entries} == {
        "0.png": "a sea", "1.jpg": "é, a city",
    }  # fmt: skip
    assert [(one.file, one.reason) for one in found.quarantined] == [
        ("2.webp", "its caption is empty")
    ]
    said = capsys.readouterr().out
    assert (
        "3 pictures and metadata.jsonl: pictures from the column image, captions from text"
        in said
    )
    assert "annotate.captions: metadata.jsonl" in said


def test_splits_are_folders_and_equal_names_stay_apart(pictures, tmp_path):
    for split in ("train", "test"):
        file = tmp_path / f"set/{split}/data-00000-of-00001.arrow"
        arrow(file, table([pictures[0]] * 2, caption=[["one", "two"], ["three"]]))

    data_unpack.run(tmp_path / "set", tmp_path / "data", None, None)

    rows = map(json.loads, (tmp_path / "data/metadata.jsonl").read_text().splitlines())
    assert [(row["file_name"], row["text"]) for row in rows] == [
        ("test/0.png", "one"), ("test/0-000002.png", "three"),
        ("train/0.png", "one"), ("train/0-000004.png", "three"),
    ]  # fmt: skip


def test_a_row_without_a_picture_is_counted_and_a_harmful_name_is_not_used(
    pictures, tmp_path, capsys
):
    held = [
        {"bytes": pictures[0].read_bytes(), "path": "../../escaped.png"},
        {"bytes": pictures[1].read_bytes(), "path": ".hidden"},
        {"bytes": None, "path": "elsewhere.png"},
    ]
    parquet(tmp_path / "set.parquet", pa.table({"image": held, "artwork": [7, 7, 8]}))

    data_unpack.run(tmp_path / "set.parquet", tmp_path / "data", None, None)

    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == ["escaped.png", "metadata.jsonl", "set-000001.jpg"]
    assert "1 rows hold no picture" in capsys.readouterr().out
    found = dataset.find(tmp_path / "data", data_unpack.TABLE, captionless=True)
    assert {entry.artwork for entry in found.entries} == {"7"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((None, None), "name the one with the pictures by --image"),
        (("x", None), "'x' is none of pictures"),
        (("left", "y"), "'y' is none of texts"),
    ],
)
def test_a_column_that_is_not_clear_is_asked_for(pictures, tmp_path, options, says):
    content = [pictures[0].read_bytes()]
    parquet(tmp_path / "set.parquet", pa.table({"left": content, "right": content}))

    with pytest.raises(ArtifactError, match=says):
        data_unpack.run(tmp_path / "set.parquet", tmp_path / "data", *options)
    assert not (tmp_path / "data").exists()


def test_what_is_there_is_never_overwritten(pictures, tmp_path):
    with pytest.raises(ArtifactError, match="is not empty"):
        data_unpack.run(tmp_path, pictures[0].parent, None, None)
    with pytest.raises(ArtifactError, match="contains no data set"):
        data_unpack.run(pictures[0].parent, tmp_path / "data", None, None)


@pytest.mark.parametrize("suffix", packed.SUFFIXES)
def test_a_damaged_data_set_is_one_paragraph(tmp_path, suffix):
    (tmp_path / f"set{suffix}").write_bytes(b"PAR1 and nothing of the kind PAR1")

    with pytest.raises(ArtifactError, match="is damaged"):
        data_unpack.run(tmp_path, tmp_path / "out", None, None)
    assert not (tmp_path / "out").exists()
