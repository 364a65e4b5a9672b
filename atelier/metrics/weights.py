"""Weights of metrics: the manifest (weights.yaml), downloads, checksums.

Weights are downloaded only on request: a metric whose weights are absent is *unavailable*, and
its reason names the command that fetches them. Files without a checksum in the manifest are
trusted on first use: the checksum of the first download is written to ``weights.json`` in the
folder of weights, and must not change. Networks in several files come with an index that names
them (``model.safetensors.index.json``); it is fetched first, and the files that it names next.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import yaml

from atelier import atomic, checksums, connections, reading
from atelier.errors import ArtifactError
from atelier.reporting import Report

RECORD = "weights.json"
_SLACK = 1.05  # sizes in the manifest are rounded; so much more room is asked for


@dataclass(frozen=True)
class File:
    """One file of a set of weights.

    Attributes:
        path: Below the folder of weights.
        source: An address; or ``id@commit/name`` of a repository of the Hugging Face hub.
        megabytes: About how large it is.
        sha256: As the manifest has it; None: trusted on first sight.
        shards: About how large the files are, together, that this one names: it is an index.
    """

    path: str
    source: str
    megabytes: float
    sha256: str | None = None
    shards: float = 0.0

    @property
    def url(self) -> str:
        """Return where it is downloaded from; ``HF_ENDPOINT`` names a mirror of the hub."""
        if self.source.startswith("https://"):
            return quote(self.source, safe=":/")
        from huggingface_hub import hf_hub_url

        repository, _, rest = self.source.partition("@")
        commit, _, name = rest.partition("/")
        return str(hf_hub_url(repository, name, revision=commit))


@dataclass(frozen=True)
class Weights:
    """All files of one network.

    Attributes:
        about: What it is, in a few words.
        license: As its publisher states it.
        files: What belongs to it.
    """

    about: str
    license: str
    files: tuple[File, ...]

    @property
    def megabytes(self) -> float:
        """Return about how large all files are together."""
        return sum(file.megabytes + file.shards for file in self.files)


def _read(manifest: Path) -> dict[str, Weights]:
    rows: dict[str, Any] = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    return {
        name: Weights(
            row["about"],
            row["license"],
            tuple(
                dataclasses.replace(
                    File(f"{place['folder']}/{file}", f"{place['source']}/{file}", *known),
                    shards=place.get("shards", {}).get(file, 0.0),
                )
                for place in row["from"]
                for file, known in place["files"].items()
            ),
        )
        for name, row in rows.items()
    }


MANIFEST = _read(Path(__file__).with_suffix(".yaml"))

State = Literal["whole", "absent", "unchecked", "damaged"]


@dataclass(frozen=True)
class Status:
    """The state of one file on disk.

    Attributes:
        file: Which.
        state: ``unchecked``: it is there, and its checksum was never taken.
        reason: Why it is damaged; empty otherwise.
        sha256: What it has, or had when it was last looked at.
    """

    file: File
    state: State
    reason: str = ""
    sha256: str | None = None


def glance(names: Sequence[str], folder: Path) -> list[Status]:
    """Return the state of the files by presence and size alone: at once, however large."""
    known = _record(folder)
    files = _files(names, folder)
    return [_glance(file, folder / file.path, known.get(file.path)) for file in files]


def check(names: Sequence[str], folder: Path, report: Report) -> list[Status]:
    """Return the state of the files by their checksums; record those seen for the first time.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        report: Receives how many files were read.
    """
    found = []
    for done, file in enumerate(_files(names, folder), start=1):
        found.append(_checked(file, folder, "found in place"))
        report(done, {})
    return found


def fetch(names: Sequence[str], folder: Path, report: Report) -> None:
    """Download what is absent or damaged; a broken download goes on where it stopped.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        report: Receives how many megabytes are there.

    Raises:
        ArtifactError: No network, no room, or the file is not what the manifest says.
    """
    wanted = [one.file for one in glance(names, folder) if one.state != "whole"]
    _require_room(wanted, folder)
    before = 0.0
    for file in wanted:
        if _checked(file, folder, "found in place").state != "whole":
            _download(file, folder / file.path, before, report)
            _accept(file, folder, file.url)
        before += file.megabytes
        report(round(before), {})
    if any(file.shards for file in wanted):
        fetch(names, folder, report)


def bring(names: Sequence[str], folder: Path, source: Path, report: Report) -> list[File]:
    """Copy files from a folder; return those that ``source`` does not hold.

    A file is looked for at its path below ``source``, then by its name directly in it.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        source: For instance the folder of weights of a machine with a network.
        report: Receives how many files were looked for.

    Raises:
        ArtifactError: ``source`` is not a folder, or a file is not what the manifest says.
    """
    if not source.is_dir():
        raise ArtifactError(
            f"{source} is not a folder; --from expects one that holds the files that `atelier "
            "weights` lists, with the same paths"
        )
    missing = []
    before = [one.file for one in glance(names, folder) if one.state != "whole"]
    for done, file in enumerate(_files(names, folder), start=1):
        target = folder / file.path
        places = (source / file.path, source / target.name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            missing.append(file)
        elif found.resolve() != target.resolve():
            with found.open("rb") as content, atomic.replacing(target) as copy:
                shutil.copyfileobj(content, copy)
            _accept(file, folder, str(found))
        report(done, {})
    if any(file.shards and file not in missing for file in before):
        return bring(names, folder, source, report)
    return missing


def absent(names: Sequence[str], folder: Path) -> str | None:
    """Return why these weights cannot be used, with the command that fetches them; or None.

    Looks at presence and size alone, so that it can be called before hours of work.
    """
    wrong = [one for one in glance(names, folder) if one.state != "whole"]
    if not wrong:
        return None
    first = folder / wrong[0].file.path
    if all(one.state == "unchecked" for one in wrong):
        command = f"atelier weights --check {' '.join(names)}"
        return f"{first} is there, but its checksum was never taken; run `{command}`"
    size = _size(sum(one.file.megabytes for one in wrong))
    others = f", and {len(wrong) - 1} more files are not usable" if len(wrong) > 1 else ""
    return (
        f"{first} {wrong[0].reason or 'is absent'}{others}; run `atelier weights "
        f"--fetch {' '.join(names)}` ({size}), or add `--from FOLDER` where there is no network"
    )


def recorded(names: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the recorded sha256 of each file, by its path."""
    known = _record(folder)
    return {file.path: known[file.path]["sha256"] for file in _files(names, folder)}


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _files(names: Sequence[str], folder: Path) -> list[File]:
    """The files of the manifest, and those that an index in the folder names."""
    found: dict[str, File] = {}
    for file in (file for name in names for file in MANIFEST[name].files):
        named = list(_named(file, folder))
        # An index that is absent counts as large as what it names, for estimates.
        size = file.megabytes + (0 if named else file.shards)
        shards = 0 if named else file.shards
        found[file.path] = dataclasses.replace(file, megabytes=size, shards=shards)
        found |= {one.path: one for one in named}
    return list(found.values())


def _named(index: File, folder: Path) -> Iterator[File]:
    """The files that an index names."""
    path = folder / index.path
    if not index.shards or not path.is_file():
        return
    try:
        content = reading.json_values(path.read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
        fit = names and all(Path(name).name == name for name in names)
    except (OSError, UnicodeDecodeError, reading.UnreadableError, LookupError, TypeError,
            AttributeError):  # fmt: skip
        fit = False
    if not fit:
        raise ArtifactError(
            f"{path} is no index of weights; delete it, and `atelier weights --fetch` brings "
            "it again"
        )
    place, source = index.path.rpartition("/")[0], index.source.rpartition("/")[0]
    for name in names:
        yield File(f"{place}/{name}", f"{source}/{name}", index.shards / len(names))


def _glance(file: File, path: Path, entry: dict[str, str] | None) -> Status:
    if not path.is_file():
        return Status(file, "absent")
    if entry is None:
        return Status(file, "unchecked")
    size = path.stat().st_size
    if size != int(entry["bytes"]):
        reason = f"has {size} bytes and had {entry['bytes']}"
        return Status(file, "damaged", reason, entry["sha256"])
    return Status(file, "whole", sha256=entry["sha256"])


def _checked(file: File, folder: Path, origin: str) -> Status:
    """Compare one file with the manifest and the record; record it if it is new and right."""
    path, known = folder / file.path, _record(folder)
    if not path.is_file():
        return Status(file, "absent")
    found, entry = checksums.sha256(path), known.get(file.path)
    expected = file.sha256 or (entry["sha256"] if entry else found)
    if found != expected:
        source = "the manifest" if file.sha256 else "the record of its first sight"
        reason = f"has sha256 {found}, {source} says {expected}"
        return Status(file, "damaged", reason, found)
    size = str(path.stat().st_size)
    if entry is None or (entry["sha256"], entry["bytes"]) != (found, size):
        trust = "known beforehand" if file.sha256 else "trusted on first sight"
        known[file.path] = {"sha256": found, "bytes": size, "from": origin, "checksum": trust}
        atomic.write(folder / RECORD, json.dumps(known, indent=2, sort_keys=True) + "\n")
    return Status(file, "whole", sha256=found)


def _accept(file: File, folder: Path, origin: str) -> None:
    """Check a file that has just arrived; a wrong one is removed."""
    status = _checked(file, folder, origin)
    if status.state == "damaged":
        (folder / file.path).unlink()
        raise ArtifactError(
            f"{file.path} from {origin} {status.reason}. It was removed; if the publisher has "
            f"replaced the file and you trust it, delete its entry in {folder / RECORD} first"
        )


def _record(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        content: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        assert all({"sha256", "bytes"} <= entry.keys() for entry in content.values())
    except (ValueError, AttributeError, AssertionError):
        raise ArtifactError(
            f"{path} is not a record of weights; delete it, and `atelier weights "
            "--check` takes the checksums again"
        ) from None
    return content


def _require_room(files: Sequence[File], folder: Path) -> None:
    needed = _SLACK * sum(file.megabytes for file in files)
    with atomic.clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e6
    if needed > free:
        raise ArtifactError(
            f"the weights need {_size(needed)}, the disk of {folder} has {_size(free)} free; "
            "free some, name fewer metrics, or point ATELIER_WEIGHTS to a larger disk"
        )


class _Progress:
    """Reports the megabytes of a download where huggingface_hub would show a bar."""

    def __init__(self, report: Report, before: float, size: int) -> None:
        self._report, self._before, self._size = report, before, size

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, more: int) -> None:
        self._size += more
        self._report(round(self._before + self._size / 1e6), {})


def _download(file: File, target: Path, before: float, report: Report) -> None:
    """Download a file after ``before`` megabytes of others; what arrives of it is kept.

    The next call goes on from there. ``hf_hub_download`` would begin again: it deletes its
    partial file, and only its own request loop, used here, can resume one.
    """
    connections.refuse_environment()
    connections.refuse_address("HF_ENDPOINT")
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    partial = target.with_name(f"{target.name}.partial")
    try:
        with atomic.clear_disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("ab", buffering=0) as out:
                http_get(
                    file.url,
                    out,
                    resume_size=out.tell(),
                    tqdm_class=lambda initial, **_: _Progress(report, before, initial),
                )
    except (httpx2.HTTPError, OSError) as error:
        here_already = isinstance(error, HfHubHTTPError) and error.response.status_code == 416
        if not here_already:
            raise _unreachable(file, error) from None
    partial.replace(target)


def _unreachable(file: File, error: Exception) -> ArtifactError:
    reason = connections.cause(error) + connections.advice(file.url, error)
    return ArtifactError(
        f"{file.url} could not be fetched ({reason}); what arrived is kept, and the same "
        "command goes on. On a machine without a network, bring the file in a folder, as "
        f"{file.path}, and run `atelier weights --fetch --from FOLDER`"
    )
