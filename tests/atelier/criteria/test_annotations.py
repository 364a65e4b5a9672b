import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.criteria import annotations
from atelier.criteria.annotations import Image, Judgement, Quarantined, Record
from atelier.errors import AnnotationError, ArtifactError

HASH = "a" * 64


def judgement(**more):
    values = {
        "image": HASH,
        "criterion": "composition/balance",
        "pole": "positive",
        "annotator": "measured-1",
        "confidence": 0.75,
    }
    return Judgement.model_validate(values | more)


@given(
    caption=st.text(st.characters(codec="utf-8")), file=st.text(st.characters(codec="utf-8"))
)
def test_what_is_written_is_read_back(tmp_path_factory, caption, file):
    row = Image(image=HASH, file=file, width=2, height=3, caption=caption, artwork="w")
    path = tmp_path_factory.mktemp("rows") / "images.jsonl"
    path.write_text(annotations.lines([row, row]), encoding="utf-8")

    assert annotations.read(path, Image) == [row, row]


def test_one_judgement_is_one_line():
    text = annotations.lines([judgement(), judgement(pole="negative")])

    assert text.count("\n") == 2
    assert text.splitlines()[0] == (
        '{"image": "' + HASH + '", "criterion": "composition/balance", "pole": "positive", '
        '"annotator": "measured-1", "confidence": 0.75}'
    )


def test_a_record_written_before_confidences_were_is_read_as_certain(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(
        f'{{"image": "{HASH}", "file": "a.png", "caption": "y", "positive": ["edges"], '
        '"negative": []}\n'
    )

    (record,) = annotations.read(path, Record)

    assert record.confidence_in("edges") == 1.0


def test_an_absent_file_names_the_stage_that_makes_it(tmp_path):
    path = tmp_path / "annotate" / "images.jsonl"

    with pytest.raises(
        ArtifactError, match=r"images.jsonl is absent; run `dvc repro annotate`"
    ):
        annotations.read(path, Image)


def test_a_line_that_does_not_fit_is_named_with_all_its_mistakes(tmp_path):
    path = tmp_path / "judgements.jsonl"
    good = annotations.line(judgement())
    path.write_text(good + '{"image": "xyz", "pole": "maybe", "confidence": 7, "x": 1}\n')

    with pytest.raises(AnnotationError) as caught:
        annotations.read(path, Judgement)

    text = str(caught.value)
    assert text.startswith(f"{path}, line 2 does not fit:\n")
    for field in ("image: ", "criterion: ", "pole: ", "annotator: ", "confidence: ", "x: "):
        assert f"  {field}" in text


@pytest.mark.parametrize("content", [b'{"file": "a", "rea', b'\xff{"file": "a"}\n'])
def test_a_damaged_file_is_an_annotation_error(tmp_path, content):
    path = tmp_path / "quarantine.jsonl"
    path.write_bytes(content)

    with pytest.raises(AnnotationError, match=r"line 1|UTF-8"):
        annotations.read(path, Quarantined)
