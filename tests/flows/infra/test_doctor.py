"""What doctor says of the weights that metrics ask: what ``python -m tasks weights`` knows."""

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from atelier.errors import ArtifactError
from atelier.metrics import weights as library
from atelier.metrics.weights import File, Weights
from flows.infra import doctor

CONTENT = b"weights"


@pytest.fixture
def shelf(tmp_path, monkeypatch, profile):
    """A folder of weights, a manifest that wants one file there, and a profile that asks it."""
    monkeypatch.chdir(tmp_path)
    shelf = tmp_path / "shelf"
    monkeypatch.setenv("ATELIER_WEIGHTS", str(shelf))
    toy = Weights("a toy", "MIT", (File("pickscore/model.bin", "https://x", 1),))
    monkeypatch.setitem(library.MANIFEST, "pickscore", toy)
    write(tmp_path, profile, ["pickscore"])
    return shelf / "pickscore"


def write(root, profile, metrics):
    profile["evaluate"]["metrics"] = metrics
    (root / "params").mkdir(exist_ok=True)
    (root / "params/profile.yaml").write_text("profile: starter\n")
    (root / "params/starter.yaml").write_text(yaml.safe_dump(profile))


def found():
    return [(one.state, one.said) for one in doctor._weights()]


def test_weights_that_lack_are_notes_with_their_cure_and_whole_ones_are_good(shelf):
    ((state, said),) = found()
    assert state == "note"
    assert said.startswith("1 file(s) of pickscore in ")
    assert said.endswith("`python -m tasks weights --fetch`")

    shelf.mkdir(parents=True)
    (shelf / "model.bin").write_bytes(CONTENT)
    ((state, said),) = found()
    assert (state, said.split(": ", 1)[1]) == (
        "note",
        "unchecked; nobody took a checksum yet: `python -m tasks weights --check`",
    )

    library.check(["pickscore"], shelf.parent, lambda *_: None)
    ((state, said),) = found()
    assert (state, said) == ("good", f"1 file(s) of weights in {shelf.parent}/")

    (shelf / "model.bin").write_bytes(CONTENT[:-1])
    ((state, said),) = found()
    assert state == "note"
    assert ": damaged; " in said


def test_metrics_without_networks_of_others_need_nothing(shelf, tmp_path, profile):
    write(tmp_path, profile, ["fid", "kid"])

    assert found() == [("good", "none of the profile's needs weights of others")]


def test_a_record_that_cannot_be_read_is_told_as_missing(shelf):
    shelf.mkdir(parents=True)
    (shelf.parent / library.RECORD).write_text("[]")

    (one,) = doctor._guarded(doctor._weights)

    assert one.state == "missing"
    assert "is not a record of weights; delete it" in one.said


def test_no_flow_begins_while_prefects_server_is_away():
    away = {PREFECT_API_URL: "http://ann:secret@127.0.0.1:9/api"}
    words = "does not answer; `make up` starts"
    with temporary_settings(away), pytest.raises(ArtifactError, match=words) as refused:
        doctor.expect_server()
    assert "secret" not in str(refused.value)

    with temporary_settings({PREFECT_API_URL: None}):
        doctor.expect_server()  # the run starts one for itself
