import json

import pytest

from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.criteria.annotations import Image, Judgement
from atelier.errors import AnnotationError, ArtifactError
from tasks.commands import labels
from tasks.run import paths


@pytest.fixture
def judged(workspace, profile):
    """Two pictures that annotate accepted."""
    del workspace
    paths.ANNOTATE.mkdir(parents=True)
    rows = [
        Image(image=n * 64, file=f"{n}.png", width=9, height=9, caption="c", artwork=n)
        for n in "ab"
    ]
    (paths.ANNOTATE / "images.jsonl").write_text(annotations.lines(rows))
    return Profile.model_validate(profile)


def test_labels_of_a_table_become_judgements(judged, tmp_path):
    table, out = tmp_path / "labels.csv", tmp_path / "said.jsonl"
    table.write_text("file,criterion,pole\na.png,colour/harmony,clashing colours\n")

    labels.read(judged, table, out, "ann")

    (one,) = annotations.read(out, Judgement)
    assert (one.image[0], one.pole, one.annotator) == ("a", "negative", "ann")


def test_label_studio_gets_two_files(judged, tmp_path):
    labels.export(judged, tmp_path / "studio", "/x/")

    assert "colour.harmony" in (tmp_path / "studio" / labels.INTERFACE).read_text()
    assert '"/x/a.png"' in (tmp_path / "studio" / labels.TASKS).read_text()


def test_what_annotate_counted_is_told(judged, capsys):
    with pytest.raises(ArtifactError, match="run `dvc repro annotate`"):
        labels.count()
    summary = {
        "images": 2,
        "quarantined": 1,
        "judgements": 3,
        "annotators": {"human ann": 2, "measured-1": 2},
        "adjudication": {"alone": 2, "agreed": 1, "too_few": 0},
        "criteria": {"edges": {"positive": 1, "negative": 0, "abstained": 7}},
    }
    (paths.ANNOTATE / "summary.json").write_text(json.dumps(summary))

    labels.count()

    said = capsys.readouterr().out
    assert said.startswith("2 pictures, 1 set aside\nhuman ann: 2 judgements\n")
    assert "3 count: alone 2, agreed 1, too few 0\n" in said
    assert [cell.strip() for cell in said.splitlines()[-2].split("│")[1:-1]] == [
        "edges", "1", "0", "7",
    ]  # fmt: skip


def test_two_annotators_are_compared_by_root(judged, tmp_path, capsys):
    for name, pole in (("ann", "positive"), ("bob", "negative")):
        one = Judgement(
            image="a" * 64, criterion="colour/harmony", pole=pole, annotator=name, confidence=1
        )
        (tmp_path / f"{name}.jsonl").write_text(annotations.line(one))

    labels.compare([tmp_path / "ann.jsonl", tmp_path / "bob.jsonl"], leaves=False)

    said = capsys.readouterr().out
    assert "ann and bob" in said
    assert "colour" in said
    assert "0.00" in said
    with pytest.raises(AnnotationError, match="at least two annotators"):
        labels.compare([tmp_path / "ann.jsonl"], leaves=False)


def test_a_name_with_brackets_is_shown_as_it_is(judged, tmp_path, capsys):
    one = "0" * 64
    said = [
        annotations.Judgement(
            image=one, criterion="edges", pole="positive", annotator=name, confidence=1.0
        )
        for name in ("human [/b]", "human [red]")
    ]
    file = tmp_path / "both.jsonl"
    file.write_text(annotations.lines(said))

    labels.compare([file], leaves=True)

    assert "human [/b] and human [red]" in " ".join(capsys.readouterr().out.split())


def test_a_former_file_of_judgements_is_called_by_its_new_name(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"voices.jsonl is called .*raw_judgements.jsonl now"
    ):
        labels.compare([tmp_path / "voices.jsonl"], leaves=False)
