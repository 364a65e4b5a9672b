import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from atelier.errors import ArtifactError, ParamsError
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
    """A file server that can go on in the middle, ignore that, or end early."""

    cut = None  # bytes of an answer after which the connection ends
    refuses = None  # bytes of a file from which on it answers 404
    ranges = True

    def do_GET(self):
        whole = Path(self.directory + self.path).read_bytes()
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        start = int(asked) if Ranges.ranges else 0
        self.asked.append((self.path, int(asked)))
        if start >= len(whole):
            self.send_error(416)
            return
        if Ranges.refuses is not None and start >= Ranges.refuses:
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(whole[start:][: Ranges.cut])

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
    monkeypatch.setitem(weights.MANIFEST, "toy", Weights("a toy", "none", (one, two)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    yield
    Ranges.cut, Ranges.refuses, Ranges.ranges = None, None, True


@pytest.mark.usefixtures("manifest")
def test_what_is_absent_is_fetched_once_and_known_from_then_on(tmp_path, server):
    folder = tmp_path / "here"
    assert "is absent" in weights.absent(["toy"], folder)

    weights.fetch(["toy"], folder, silent)
    weights.fetch(["toy"], folder, silent)

    assert [path for path, _ in server.asked] == ["/one.bin", "/deep/two.pt"]
    assert weights.absent(["toy"], folder) is None
    sums = weights.recorded(["toy"], folder)
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    assert not list(folder.rglob("*.partial"))


@pytest.mark.usefixtures("manifest")
def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path, server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50)
    folder, told = tmp_path / "here", []
    Ranges.cut, Ranges.refuses = 100, 300

    with pytest.raises(ArtifactError, match=r"404.*what arrived is kept.*goes on"):
        weights.fetch(["toy"], folder, silent)
    broken, server.asked[:] = list(server.asked), []
    assert weights.absent(["toy"], folder) is not None
    Ranges.cut = Ranges.refuses = None
    weights.fetch(["toy"], folder, lambda done, values: told.append(done))

    assert broken == [("/one.bin", start) for start in (0, 100, 200, 300)]
    assert server.asked[0] == ("/one.bin", 300)
    assert (folder / "one.bin").read_bytes() == CONTENT["one.bin"]
    assert told == sorted(told)


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("kept", [300, 6000])
def test_a_server_that_sends_all_again_and_a_file_that_was_whole(tmp_path, kept):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "one.bin.partial").write_bytes(CONTENT["one.bin"][:kept])
    Ranges.ranges = kept == 6000  # it answers 416 then

    weights.fetch(["toy"], folder, silent)

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
    with pytest.raises(ArtifactError, match="is not a folder"):
        weights.bring(["toy"], tmp_path / "here", tmp_path / "nowhere", silent)


@pytest.mark.usefixtures("manifest")
def test_files_that_lie_there_unrecorded_are_trusted_when_they_are_checked(shelf):
    assert "run `atelier weights --check toy`" in weights.absent(["toy"], shelf)

    states = {one.file.path: one.state for one in weights.check(["toy"], shelf, silent)}

    assert set(states.values()) == {"whole"}
    assert weights.absent(["toy"], shelf) is None


@pytest.mark.usefixtures("manifest")
def test_a_change_after_first_sight_is_damage(shelf):
    weights.check(["toy"], shelf, silent)
    (shelf / "deep/two.pt").write_bytes(b"SECOND")  # the same size

    (damaged,) = [one for one in weights.check(["toy"], shelf, silent) if one.state != "whole"]

    assert damaged.file.path == "deep/two.pt"
    assert "the record of its first sight says" in damaged.reason
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
    monkeypatch.setitem(weights.MANIFEST, "far", Weights("", "", (file,)))
    monkeypatch.setattr(File, "url", "http://127.0.0.1:9/x.bin")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)

    with pytest.raises(ArtifactError, match="--fetch --from FOLDER"):
        weights.fetch(["far"], tmp_path, silent)


UNPINNED = {"CodeGoat24/UnifiedReward-qwen-7b", "Thunderbolt215215/ArtiMuse"}


def test_hub_files_are_pinned_to_a_commit_where_one_is_known():
    files = [file for one in weights.MANIFEST.values() for file in one.files]

    for file in files:
        if not file.source.startswith("https://"):
            repository, commit = file.source.split("@")
            assert len(commit.split("/")[0]) == (4 if repository in UNPINNED else 40)
            assert repository.count("/") == 1
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.megabytes > 0
    assert len({file.path for file in files}) == len(files)


def test_addresses_are_encoded_and_a_mirror_of_the_hub_is_used():
    address = (
        "[weights.MANIFEST[name].files[n].url for name, n in (('clip-l', 1), ('aesthetic', 0))]"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"from atelier.metrics import weights; print(*{address})"],
        env=os.environ | {"HF_ENDPOINT": "https://mirror.example/"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [
        "https://mirror.example/openai/clip-vit-large-patch14/resolve/"
        "32bd64288804d66eefd0ccbe215aa642df71cc41/config.json",
        "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
        "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    ]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / weights.RECORD).write_text('["nonsense"]')

    with pytest.raises(ArtifactError, match=r"weights\.json is not a record"):
        weights.absent(["aesthetic"], tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "ALL_PROXY is .*, a SOCKS proxy"),
        ("https_proxy", "foo://h", "https_proxy is 'foo://h'"),
        ("SSL_CERT_FILE", "/nowhere.pem", "SSL_CERT_FILE names /nowhere.pem"),
        ("HF_ENDPOINT", "http://h:port", "HF_ENDPOINT is 'http://h:port'"),
        ("HF_ENDPOINT", "mirror.example", "HF_ENDPOINT is 'mirror.example'"),
    ],
)
def test_an_environment_that_cannot_fetch_is_named(
    tmp_path, monkeypatch, variable, value, says
):
    file = File("x.bin", "nobody/nothing@abc/x.bin", 0.1)
    monkeypatch.setitem(weights.MANIFEST, "far", Weights("", "", (file,)))
    monkeypatch.setenv(variable, value)

    with pytest.raises(ParamsError, match=says):
        weights.fetch(["far"], tmp_path, silent)


@pytest.fixture
def indexed(shelf, server, monkeypatch):
    """A network in two files that an index names."""
    where = {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}
    (shelf / "net").mkdir()
    (shelf / "net/index.json").write_text(json.dumps({"weight_map": where}))
    for name in set(where.values()):
        (shelf / "net" / name).write_bytes(name.encode() * 50)
    at = f"http://127.0.0.1:{server.server_port}/net"
    index = File("net/index.json", f"{at}/index.json", 0.001, shards=0.002)
    monkeypatch.setattr(File, "url", property(lambda file: file.source))
    monkeypatch.setitem(weights.MANIFEST, "net", Weights("a net", "none", (index,)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return ["net/index.json", "net/m-1.safetensors", "net/m-2.safetensors"]


def test_what_an_index_names_is_fetched_after_it(indexed, tmp_path):
    home = tmp_path / "weights"
    assert "`atelier weights --fetch net` (0 MB)" in weights.absent(["net"], home)
    (before,) = weights.glance(["net"], home)
    assert before.file.megabytes == pytest.approx(0.003)

    weights.fetch(["net"], home, silent)

    assert [one.file.path for one in weights.glance(["net"], home)] == indexed
    assert weights.absent(["net"], home) is None
    assert list(weights.recorded(["net"], home)) == indexed
    (home / indexed[1]).unlink()
    assert f"{home / indexed[1]} is absent" in weights.absent(["net"], home)


def test_what_an_index_names_is_brought_from_a_folder(indexed, shelf, tmp_path):
    (shelf / indexed[2]).unlink()

    missing = weights.bring(["net"], tmp_path / "weights", shelf, silent)

    assert [one.path for one in missing] == indexed[2:]
    assert (tmp_path / "weights" / indexed[1]).is_file()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../b"}}',
        '{"weight_map": {"a": 1}}',
    ],
)
def test_an_index_that_names_no_files_is_refused(indexed, tmp_path, content):
    home = tmp_path / "weights"
    (home / "net").mkdir(parents=True)
    (home / "net/index.json").write_text(content)

    with pytest.raises(ArtifactError, match="is no index of weights"):
        weights.glance(["net"], home)
