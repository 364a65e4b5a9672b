import pytest

from atelier.criteria import layouts
from atelier.errors import ArtifactError


@pytest.fixture
def folder(tmp_path):
    def folder(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return [(one.name, one.captions) for one in layouts.of(tmp_path)]

    return folder


BESIDE = ("caption files beside the pictures", None)
OURS = "file,caption\na.png,x\n"
THEIRS = '{"file_name": "a.png", "text": "x"}\n'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a_dot_png": ""}, ("file names", None)),
        ({"a_dot_png": "", "a_dot_txt": "x"}, BESIDE),
        ({"b__a_dot_png": "", "b__a_dot_caption": "x"}, BESIDE),
        ({"a_dot_png": "", "index_dot_csv": OURS}, ("table, index.csv", "index.csv")),
        (
            {"a_dot_png": "", "metadata_dot_jsonl": THEIRS},
            ("Hugging Face ImageFolder, metadata.jsonl", "metadata.jsonl"),
        ),
        (
            {"b__a_dot_png": "", "b__metadata_dot_jsonl": THEIRS},
            ("Hugging Face ImageFolder, metadata.jsonl in the folders", "metadata.jsonl"),
        ),
    ],
)  # fmt: skip
def test_a_folder_is_known_by_what_lies_in_it(folder, files, expected):
    assert folder(**files)[0] == expected


def test_all_sources_are_listed_and_the_usual_table_is_first(folder):
    found = folder(
        a_dot_png="", a_dot_txt="x", another_dot_csv=OURS, captions_dot_csv=OURS,
        pairs_dot_csv="file_win,file_lose,caption\n",
    )  # fmt: skip

    assert [captions for _, captions in found] == ["captions.csv", "another.csv", None]


def test_a_table_that_is_none_is_no_layout(folder, tmp_path):
    (tmp_path / "broken.csv").write_bytes(b"file,caption\n\xff\xfe")

    assert folder(a_dot_png="", notes_dot_json="{", other_dot_csv="year\n1900\n") == [
        ("file names", None)
    ]


def test_an_absent_folder_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="is absent"):
        layouts.of(tmp_path / "nowhere")
