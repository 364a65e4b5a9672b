import pytest

from atelier.criteria import annotations
from atelier.criteria.annotations import Image, Judgement
from atelier.errors import AnnotationError
from atelier.params import Profile
from tasks import labels, paths


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
