import pytest

from atelier.errors import ArtifactError, ParamsError
from flows.dvc import numbered_captions


def test_no_two_pictures_share_a_caption_any_more(tmp_path):
    rows = ['a.png,"a pond, blue",x', 'b.png,"a pond, blue",y']
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption,artwork", *rows, ""]))

    name = numbered_captions.write(tmp_path, "captions.csv")

    first, *rows = (tmp_path / name).read_text().splitlines()
    assert first == "file,caption,artwork"
    assert rows == ['a.png,"a pond, blue, number 1",x', 'b.png,"a pond, blue, number 2",y']


@pytest.mark.parametrize(("table", "says"), [(None, "is None"), ("a.jsonl", "is 'a.jsonl'")])
def test_other_sources_of_captions_are_refused(tmp_path, table, says):
    with pytest.raises(ParamsError, match=says):
        numbered_captions.write(tmp_path, table)


@pytest.mark.parametrize("text", [None, "file,text\na.png,x\n", "file,caption\n"])
def test_a_table_without_captions_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "a.csv").write_text(text)

    with pytest.raises(ArtifactError, match=r"a\.csv"):
        numbered_captions.write(tmp_path, "a.csv")
