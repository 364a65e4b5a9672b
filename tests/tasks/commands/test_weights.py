import pytest

from atelier.config.profile import Profile
from atelier.errors import ArtifactError, ParamsError
from atelier.metrics import weights as library
from atelier.metrics.weights import File, Weights
from tasks.commands import weights


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that somebody carried here, and the manifest that knows what is in it."""
    monkeypatch.setenv("ATELIER_WEIGHTS", str(tmp_path / "here"))
    shelf = tmp_path / "shelf"
    (shelf / "pickscore").mkdir(parents=True)
    (shelf / "pickscore/model.bin").write_bytes(b"weights")
    toy = Weights("a toy", "MIT", (File("pickscore/model.bin", "https://x", 1),))
    monkeypatch.setitem(library.MANIFEST, "pickscore", toy)
    return shelf


@pytest.fixture
def checked(profile):
    profile["evaluate"]["metrics"] = ["pickscore"]
    return Profile.model_validate(profile)


def run(checked, names=(), fetch=False, check=False, source=None):
    weights.run(checked, list(names), fetch=fetch, check=check, source=source)


def test_the_list_names_file_size_licence_source_and_place(checked, shelf, capsys):
    run(checked)

    said = capsys.readouterr().out
    for word in ("pickscore/model.bin", "1.0 MB", "MIT", "https:", "ATELIER_WEIGHTS", "–"):
        assert word in said


def test_a_folder_brought_by_hand_then_holds(checked, shelf, tmp_path, capsys):
    with pytest.raises(ArtifactError, match=r"1 of 1 files are absent.*--fetch --from FOLDER"):
        run(checked, check=True)

    run(checked, fetch=True, source=shelf)
    run(checked, check=True)

    assert (tmp_path / "here/pickscore/model.bin").read_bytes() == b"weights"
    assert "first sight" in capsys.readouterr().out


def test_damage_is_refused_with_file_and_cure(checked, shelf, tmp_path):
    run(checked, source=shelf)
    (tmp_path / "here/pickscore/model.bin").write_bytes(b"WEIGHTS")

    with pytest.raises(ArtifactError, match=r"(?s)model\.bin: has sha256 .*--fetch. replaces"):
        run(checked, check=True)


def test_a_name_that_nobody_knows_is_refused_with_those_that_are_known(checked):
    with pytest.raises(ParamsError, match=r"'pikscore' is no metric.*pickscore"):
        run(checked, ["pikscore"])


def test_a_metric_stands_for_all_its_weights(checked):
    assert weights._wanted(checked, ["aesthetic"]) == ["clip-l", "aesthetic"]
    assert weights._wanted(checked, ["fid"]) == ["inception"]
    assert weights._wanted(checked, ["clip-l"]) == ["clip-l"]
    assert weights._wanted(checked, []) == ["pickscore"]
