import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from atelier.errors import ArtifactError
from atelier.metrics import weights
from atelier.metrics.weights import File, Weights
from atelier.reporting import silent

CONTENT = {"one.bin": b"first " * 1000, "deep/two.pt": b"second"}


@pytest.fixture
def shelf(tmp_path):
    """A folder of files, as somebody would carry it, or a server would offer it."""
    folder = tmp_path / "shelf"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def server(shelf):
    handler = functools.partial(Ranges, directory=str(shelf))
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    found.asked = Ranges.asked = []
    yield found
    found.shutdown()
    found.server_close()


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server that can go on in the middle, and cut off when it is told to."""

    cut = None

    def do_GET(self):
        whole = Path(self.directory + self.path).read_bytes()
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.asked.append((self.path, start))
        if start >= len(whole):
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        self.wfile.write(whole[start : Ranges.cut])

    def log_message(self, *words):
        pass


@pytest.fixture
def manifest(server, monkeypatch):
    """Two files: one whose checksum is known beforehand, one that is trusted on first sight."""
    at = f"http://127.0.0.1:{server.server_port}"
    known = hashlib.sha256(CONTENT["one.bin"]).hexdigest()
    one = File("one.bin", f"{at}/one.bin", 0.006, known)
    two = File("deep/two.pt", f"{at}/deep/two.pt", 0.001)
    monkeypatch.setattr(File, "url", property(lambda file: file.source))
    monkeypatch.setitem(weights.MANIFEST, "toy", Weights("toy", "a toy", "none", (one, two)))
    yield
    Ranges.cut = None


@pytest.mark.usefixtures("manifest")
def test_what_is_absent_is_fetched_once_and_known_from_then_on(tmp_path, server):
    folder = tmp_path / "here"
    assert "is absent" in weights.absent(["toy"], folder)

    weights.fetch(["toy"], folder, silent)
    weights.fetch(["toy"], folder, silent)

    assert [path for path, _ in server.asked] == ["/one.bin", "/deep/two.pt"]
    assert weights.absent(["toy"], folder) is None
    sums = weights.checksums(["toy"], folder)
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    assert not list(folder.rglob("*.partial"))


@pytest.mark.usefixtures("manifest")
def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path, server):
    folder, Ranges.cut = tmp_path / "here", 100

    with pytest.raises(ArtifactError, match=r"100 of 6000 bytes arrived.*goes on"):
        weights.fetch(["toy"], folder, silent)
    assert weights.absent(["toy"], folder) is not None
    Ranges.cut = None
    weights.fetch(["toy"], folder, silent)

    assert server.asked[:2] == [("/one.bin", 0), ("/one.bin", 100)]
    assert (folder / "one.bin").read_bytes() == CONTENT["one.bin"]


@pytest.mark.usefixtures("manifest")
def test_what_is_not_what_the_manifest_says_does_not_stay(tmp_path, shelf):
    (shelf / "one.bin").write_bytes(b"forged")

    with pytest.raises(ArtifactError, match=r"has sha256 .*the manifest says"):
        weights.fetch(["toy"], tmp_path / "here", silent)

    assert not (tmp_path / "here/one.bin").exists()


@pytest.mark.usefixtures("manifest")
def test_a_folder_brought_by_hand_is_taken_in_either_layout(tmp_path, shelf, server):
    (shelf / "two.pt").write_bytes((shelf / "deep/two.pt").read_bytes())
    (shelf / "deep/two.pt").unlink()

    missing = weights.bring(["toy"], tmp_path / "here", shelf, silent)

    assert missing == []
    assert weights.absent(["toy"], tmp_path / "here") is None
    assert server.asked == []


@pytest.mark.usefixtures("manifest")
def test_what_the_folder_does_not_hold_is_named(tmp_path, shelf):
    (shelf / "one.bin").unlink()

    missing = weights.bring(["toy"], tmp_path / "here", shelf, silent)

    assert [file.path for file in missing] == ["one.bin"]
    with pytest.raises(ArtifactError, match="is no folder"):
        weights.bring(["toy"], tmp_path / "here", tmp_path / "nowhere", silent)


@pytest.mark.usefixtures("manifest")
def test_files_that_lie_there_unrecorded_are_trusted_when_they_are_checked(shelf):
    assert "run `python -m tasks weights --check toy`" in weights.absent(["toy"], shelf)

    states = {one.file.path: one.state for one in weights.check(["toy"], shelf, silent)}

    assert set(states.values()) == {"whole"}
    assert weights.absent(["toy"], shelf) is None


@pytest.mark.usefixtures("manifest")
def test_a_change_after_first_sight_is_damage(shelf):
    weights.check(["toy"], shelf, silent)
    (shelf / "deep/two.pt").write_bytes(b"SECOND")  # the same size

    (damaged,) = [one for one in weights.check(["toy"], shelf, silent) if one.state != "whole"]

    assert damaged.file.path == "deep/two.pt"
    assert "what was first seen here says" in damaged.reason
    (shelf / "one.bin").write_bytes(b"short")
    assert "has 5 bytes and had 6000" in weights.absent(["toy"], shelf)


@pytest.mark.usefixtures("manifest")
def test_too_small_a_disk_is_said_before_anything_is_fetched(tmp_path, server, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(ArtifactError, match="ATELIER_WEIGHTS"):
        weights.fetch(["toy"], tmp_path / "here", silent)
    assert server.asked == []


def test_without_a_network_the_way_round_it_is_named(tmp_path, monkeypatch):
    file = File("x.bin", "nobody/nothing@abc/x.bin", 0.1)
    monkeypatch.setitem(weights.MANIFEST, "far", Weights("far", "", "", (file,)))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(ArtifactError, match="--fetch --from FOLDER"):
        weights.fetch(["far"], tmp_path, silent)


def test_hub_files_are_pinned_to_a_commit_and_mirrors_are_heeded(monkeypatch):
    files = [file for one in weights.MANIFEST.values() for file in one.files]

    for file in files:
        if not file.source.startswith("https://"):
            repository, commit = file.source.split("@")
            assert len(commit.split("/")[0]) == 40
            assert repository.count("/") == 1
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.megabytes > 0
    assert len({file.path for file in files}) == len(files)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    clip = weights.MANIFEST["clip-l"].files[1]
    assert clip.url == (
        "https://mirror.example/openai/clip-vit-large-patch14/resolve/"
        "32bd64288804d66eefd0ccbe215aa642df71cc41/config.json"
    )


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / weights.RECORD).write_text('["nonsense"]')

    with pytest.raises(ArtifactError, match=r"weights\.json is no record"):
        weights.absent(["aesthetic"], tmp_path)
