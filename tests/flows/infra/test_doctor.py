"""What doctor says of the weights that metrics ask: what ``atelier weights`` knows."""

import subprocess

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from atelier.errors import ArtifactError
from atelier.metrics import weights as library
from atelier.metrics.weights import File, Weights
from flows.infra import doctor, local_services

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
    assert said.endswith("`atelier weights --fetch`")

    shelf.mkdir(parents=True)
    (shelf / "model.bin").write_bytes(CONTENT)
    ((state, said),) = found()
    assert (state, said.split(": ", 1)[1]) == (
        "note",
        "unchecked; no checksum was taken yet: `atelier weights --check`",
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

    assert found() == [("good", "no metric of the profile needs third-party weights")]


def test_a_record_that_cannot_be_read_is_told_as_missing(shelf):
    shelf.mkdir(parents=True)
    (shelf.parent / library.RECORD).write_text("[]")

    (one,) = doctor._guarded(doctor._weights)

    assert one.state == "missing"
    assert "is not a record of weights; delete it" in one.said


def test_no_flow_begins_while_prefects_server_is_away():
    away = {PREFECT_API_URL: "http://ann:secret@127.0.0.1:9/api"}
    words = r"does not answer \(\[Errno 111\] Connection refused\); `atelier up` starts"
    with temporary_settings(away), pytest.raises(ArtifactError, match=words) as refused:
        doctor.expect_server()
    assert "secret" not in str(refused.value)

    with temporary_settings({PREFECT_API_URL: None}):
        doctor.expect_server()  # the run starts one for itself


@pytest.mark.parametrize("address", ["http://[::1", "http://h:port", "x", "http://a:secret@h"])
def test_an_address_that_is_none_is_a_failure_and_shows_no_password(address):
    said = local_services.failure(f"{address}/health")

    assert said
    assert "secret" not in said


def git(*words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


def test_a_changed_dvc_lock_alone_leaves_runs_reproducible(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for name in ("dvc.lock", "code.py"):
        (tmp_path / name).write_text("old\n")
    git("add", "-A")
    git("commit", "-qm", "All")

    (tmp_path / "dvc.lock").write_text("new\n")
    (committed,) = doctor._git()
    (tmp_path / "code.py").write_text("new\n")
    (changed,) = doctor._git()

    assert committed.state == "good"
    assert (changed.state, changed.said.split(":")[0]) == (
        "note",
        "uncommitted changes (code.py)",
    )


def test_a_base_is_there_only_where_the_folder_holds_a_model(shelf, tmp_path):
    folder = tmp_path / "base/starter"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("Download it.\n")

    (one,) = doctor._base()
    (folder / "model_index.json").write_text("{}")
    (other,) = doctor._base()

    assert one.state == "missing"
    assert "`atelier base` trains a small one" in one.said
    assert other.state == "good"


def test_a_profile_copied_without_its_base_is_told_with_the_cure(shelf, tmp_path):
    (tmp_path / "params/profile.yaml").write_text("profile: mine\n")
    (tmp_path / "params/starter.yaml").rename(tmp_path / "params/mine.yaml")
    (tmp_path / "base/starter").mkdir(parents=True)
    (tmp_path / "base/starter/model_index.json").write_text("{}")

    (one,) = doctor._base()

    assert one.state == "missing"
    assert one.said.startswith("params/mine.yaml: model.source is 'base/starter', and ")
    assert "`cp -r base/starter base/mine`, and set `model.source: base/mine`" in one.said


def test_who_tracks_a_base_is_looked_at(shelf, tmp_path):
    git("init", "-q")
    folder, pin = tmp_path / "base/starter", tmp_path / "base/starter.dvc"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (tmp_path / ".dvc").mkdir()

    (nobodys,) = doctor._base()
    pin.write_text("outs: []\n")
    (new,) = doctor._base()
    git("add", "base/starter.dvc")
    (pinned,) = doctor._base()
    (folder / "model_index.json").unlink()
    (away,) = doctor._base()

    assert nobodys.state == new.state == "note"
    assert "neither git nor DVC tracks" in nobodys.said
    assert "run `dvc add base/starter`" in nobodys.said
    assert "commit base/starter.dvc" in new.said
    assert pinned.state == "good"
    assert (away.state, away.said) == (
        "missing",
        "base/starter.dvc pins a base that is not here: `dvc pull base/starter.dvc`",
    )


def test_a_base_that_git_holds_needs_no_pin_and_one_with_a_note_in_git_says_what_to_remove(
    shelf, tmp_path
):
    git("init", "-q")
    folder = tmp_path / "base/starter"
    folder.mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()
    (folder / "README.md").write_text("Put one here.\n")
    git("add", "-A")
    (folder / "model_index.json").write_text("{}")

    (noted,) = doctor._base()
    git("add", "-A")
    (held,) = doctor._base()

    assert noted.state == "note"
    assert "`git rm --quiet base/starter/README.md` first, then `dvc add" in noted.said
    assert held.state == "good"
