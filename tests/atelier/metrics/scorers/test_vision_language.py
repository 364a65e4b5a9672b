import pytest

from atelier.errors import ArtifactError
from atelier.metrics.scorers import vision_language

CODE = '''
import sys
sys.exit("this must not run")
A = """
Rate it: {caption}
"""
def ask(prompt, image):
    return [f"Given [{prompt}] and {image.size}, rate."]
register(Talk(name="two", words="Two."), Talk(name="one", words="One."))
'''


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "code.py"
    file.write_text(CODE)
    return file


def test_words_are_read_out_of_code_that_never_runs(code):
    assert vision_language.published(code, "Rate it") == "\nRate it: {caption}\n"
    assert vision_language.published(code, "Given [") == "Given [{prompt}] and {}, rate."
    assert vision_language.keyword(code, "one", "words") == "One."


@pytest.mark.parametrize("begins", ["Nothing", ""])
def test_words_that_are_not_there_or_not_alone_are_refused(code, begins):
    with pytest.raises(
        ArtifactError, match=r"texts that begin with .* the publisher has changed"
    ):
        vision_language.published(code, begins)
    with pytest.raises(ArtifactError, match="0 texts for words"):
        vision_language.keyword(code, "three", "words")


def test_a_file_that_is_no_code_is_refused(tmp_path):
    (tmp_path / "code.py").write_text("<html>")

    with pytest.raises(ArtifactError, match=r"code.py cannot be read \(SyntaxError\)"):
        vision_language.published(tmp_path / "code.py", "a")


@pytest.mark.parametrize("index", ["{}", "[", '{"weight_map": {"a": "absent.safetensors"}}'])
def test_a_damaged_index_is_refused(tmp_path, index):
    path = tmp_path / vision_language.INDEX
    path.write_text(index)

    with pytest.raises(ArtifactError, match="holds no weights that can be read"):
        vision_language.tensors(path)
