import io

import pyarrow as pa
import pytest
from PIL import Image

from atelier.criteria import packed
from atelier.errors import ArtifactError


def picture() -> dict[str, bytes]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "navy").save(file, "PNG")
    return {"bytes": file.getvalue()}


def written(folder, table):
    file = folder / "data.arrow"
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return file


def test_a_column_whose_name_is_torn_is_damage_told_in_words(tmp_path):
    file = written(tmp_path, pa.table({"image": [picture()], "subtitles": ["a boat"]}))
    assert packed.columns(file, "image", "subtitles").caption == "subtitles"
    file.write_bytes(file.read_bytes().replace(b"subtitles", b"subt\xfftles", 1))

    with pytest.raises(ArtifactError, match=r"data\.arrow is damaged: .*utf-8"):
        packed.columns(file, None, None)


def test_names_of_columns_in_a_message_are_bounded(tmp_path):
    file = written(tmp_path, pa.table({"image": [picture()], "a" * 100_000: ["a boat"]}))

    with pytest.raises(ArtifactError, match="none of texts") as refusal:
        packed.columns(file, None, "caption")

    assert len(str(refusal.value)) < 1_000
