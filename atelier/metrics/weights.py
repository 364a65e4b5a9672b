"""Weights that metrics need and nobody ships: which files, from where, and whether whole.

Nothing is downloaded unasked: a metric whose weights are absent is *unavailable*, and says
which command brings them. A checksum stands in the manifest where the publisher's own store or
several independent users state it. All others are trusted on first sight: what was fetched or
brought first is written to ``weights.json`` beside the files, and has to stay the same from
then on.
"""

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atelier import atomic
from atelier.errors import ArtifactError
from atelier.reporting import Report

RECORD = "weights.json"
_HUB = "https://huggingface.co"
_CHUNK = 1 << 20
_SLACK = 1.05  # sizes in the manifest are rounded; so much more room is asked for


@dataclass(frozen=True)
class File:
    """One file of a set of weights.

    Attributes:
        path: Below the folder of weights.
        source: An address; or ``id@commit/name`` of a repository of the Hugging Face hub.
        megabytes: About how large it is.
        sha256: Where it is known beforehand; None: trusted on first sight.
    """

    path: str
    source: str
    megabytes: float
    sha256: str | None = None

    @property
    def url(self) -> str:
        """Return where it is downloaded from; ``HF_ENDPOINT`` names a mirror of the hub."""
        if self.source.startswith("https://"):
            return self.source
        repository, _, rest = self.source.partition("@")
        commit, _, name = rest.partition("/")
        hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
        return f"{hub}/{repository}/resolve/{commit}/{name}"


@dataclass(frozen=True)
class Weights:
    """All files of one network.

    Attributes:
        name: By which the command knows it.
        about: What it is, in a few words.
        licence: As its publisher states it.
        files: What belongs to it.
    """

    name: str
    about: str
    licence: str
    files: tuple[File, ...]

    @property
    def megabytes(self) -> float:
        """Return about how large all files are together."""
        return sum(file.megabytes for file in self.files)


def _hub(
    folder: str,
    repository: str,
    *names: tuple[str, float] | tuple[str, float, str],
) -> tuple[File, ...]:
    return tuple(
        File(f"{folder}/{name}", f"{repository}/{name}", size, *known)
        for name, size, *known in names
    )


_CLIP_L = "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K@1c2b8495b28150b8a4922ee1c8edee224c284c0c"
_PICK = "yuvalkirstain/PickScore_v1@a4e4367c6dfa7288a00c550414478f865b875800"
_HPS = "xswu/HPSv2@697403c78157020a1ae59d23f111aa58ced35b0a"
_REWARD = "zai-org/ImageReward@5736be03b2652728fb87788c9797b0570450ab72"
_BERT = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594"
_WORDS: tuple[tuple[str, float], ...] = (
    ("tokenizer.json", 2.2),
    ("vocab.json", 0.9),
    ("merges.txt", 0.5),
    ("tokenizer_config.json", 0.01),
    ("special_tokens_map.json", 0.01),
)

MANIFEST = {
    one.name: one
    for one in (
        Weights(
            "inception",
            "Inception V3, whose features FID and its kin compare (TorchScript)",
            "Apache-2.0 (network), NVIDIA Source Code License (this packaging)",
            (
                File(
                    "inception/inception-2015-12-05.pt",
                    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
                    "inception-2015-12-05.pt",
                    95.6,
                ),
            ),
        ),
        Weights(
            "clip-l",
            "CLIP ViT-L/14 by OpenAI",
            "MIT (code); the model card asks for research use",
            _hub(
                "clip-l",
                _CLIP_L,
                (
                    "model.safetensors",
                    1710.5,
                    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
                ),
                ("config.json", 0.01),
                *_WORDS,
            ),
        ),
        Weights(
            "aesthetic",
            "LAION's aesthetic head on CLIP ViT-L/14 (sac+logos+ava1-l14-linearMSE)",
            "Apache-2.0",
            (
                File(
                    "aesthetic/sac+logos+ava1-l14-linearMSE.pth",
                    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
                    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
                    3.7,
                    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
                ),
            ),
        ),
        Weights(
            "pickscore",
            "PickScore v1 (CLIP ViT-H/14 taught by Pick-a-Pic)",
            "MIT (code); the model card names none for the weights",
            (
                *_hub("pickscore", _PICK, ("model.safetensors", 3944.6), ("config.json", 0.01)),
                *_hub("pickscore", _CLIP_H, *_WORDS),
            ),
        ),
        Weights(
            "hpsv2.0",
            "Human Preference Score v2.0 (CLIP ViT-H/14)",
            "Apache-2.0",
            _hub("hpsv2", _HPS, ("HPS_v2_compressed.pt", 1972.5)),
        ),
        Weights(
            "hpsv2.1",
            "Human Preference Score v2.1 (CLIP ViT-H/14)",
            "Apache-2.0",
            _hub(
                "hpsv2",
                _HPS,
                (
                    "HPS_v2.1_compressed.pt",
                    1972.5,
                    "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
                ),
            ),
        ),
        Weights(
            "imagereward",
            "ImageReward v1.0 (BLIP), with BERT's word pieces",
            "Apache-2.0",
            (
                *_hub(
                    "imagereward",
                    _REWARD,
                    ("ImageReward.pt", 1786.9),
                    ("med_config.json", 0.01),
                ),
                *_hub(
                    "imagereward/words",
                    _BERT,
                    ("tokenizer.json", 0.5),
                    ("vocab.txt", 0.2),
                    ("tokenizer_config.json", 0.01),
                    ("config.json", 0.01),
                ),
            ),
        ),
    )
}

State = Literal["whole", "absent", "unchecked", "damaged"]


@dataclass(frozen=True)
class Status:
    """One file as it lies there.

    Attributes:
        file: Which.
        state: ``unchecked``: there, but nobody has taken its checksum yet.
        reason: Why it is damaged; empty otherwise.
        sha256: What it has, or had when it was last looked at.
    """

    file: File
    state: State
    reason: str
    sha256: str | None


def glance(names: Sequence[str], folder: Path) -> list[Status]:
    """Return the state of the files by presence and size alone: at once, however large."""
    known = _record(folder)
    return [_glance(file, folder, known) for file in _files(names)]


def check(names: Sequence[str], folder: Path, report: Report) -> list[Status]:
    """Return the state of the files by their checksums; keep those seen for the first time.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        report: Told how many files were read.
    """
    found = []
    for done, file in enumerate(_files(names), start=1):
        found.append(_checked(file, folder, "found in place"))
        report(done, {})
    return found


def fetch(names: Sequence[str], folder: Path, report: Report) -> None:
    """Download what is absent or damaged; a broken download goes on where it stopped.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        report: Told how many megabytes are there.

    Raises:
        ArtifactError: No network, no room, or the file is not what the manifest says.
    """
    wanted = [one.file for one in glance(names, folder) if one.state != "whole"]
    _ask_for_room(wanted, folder)
    before = 0.0
    for file in wanted:
        target = folder / file.path
        if not target.is_file() or _checked(file, folder, "found in place").state != "whole":
            target.unlink(missing_ok=True)
            for megabytes in _download(file, target):
                report(round(before + megabytes), {})
            _accept(file, folder, file.url)
        before += file.megabytes
        report(round(before), {})


def bring(names: Sequence[str], folder: Path, source: Path, report: Report) -> list[File]:
    """Copy files that people carried here; return those that ``source`` does not hold.

    A file is looked for at its path below ``source``, then by its name directly in it.

    Args:
        names: Of the manifest.
        folder: Where weights lie.
        source: For instance the folder of weights of a machine with a network.
        report: Told how many files were looked for.

    Raises:
        ArtifactError: ``source`` is no folder, or a file is not what the manifest says.
    """
    if not source.is_dir():
        raise ArtifactError(
            f"{source} is no folder; --from expects one that holds the files of `python -m "
            "tasks weights`, laid out as they are listed there"
        )
    missing = []
    for done, file in enumerate(_files(names), start=1):
        places = (source / file.path, source / Path(file.path).name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            missing.append(file)
        elif found.resolve() != (folder / file.path).resolve():
            _copy(found, folder / file.path)
            _accept(file, folder, str(found))
        report(done, {})
    return missing


def absent(names: Sequence[str], folder: Path) -> str | None:
    """Return why these weights cannot be used, with the command that brings them; or None.

    Looks at presence and size alone, so that it can be asked before hours of work.
    """
    wrong = [one for one in glance(names, folder) if one.state != "whole"]
    if not wrong:
        return None
    if all(one.state == "unchecked" for one in wrong):
        return (
            f"{folder / wrong[0].file.path} was brought but never checked; "
            f"run `python -m tasks weights --check {' '.join(names)}`"
        )
    size = sum(one.file.megabytes for one in wrong)
    others = f", and {len(wrong) - 1} more files are not usable" if len(wrong) > 1 else ""
    return (
        f"{folder / wrong[0].file.path} {wrong[0].reason or 'is absent'}{others}; run `python "
        f"-m tasks weights --fetch {' '.join(names)}` ({_size(size)}), or add `--from FOLDER` "
        "where there is no network"
    )


def checksums(names: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the recorded sha256 of each file, by its path."""
    known = _record(folder)
    return {file.path: known[file.path]["sha256"] for file in _files(names)}


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _files(names: Sequence[str]) -> list[File]:
    return list({file.path: file for name in names for file in MANIFEST[name].files}.values())


def _glance(file: File, folder: Path, known: dict[str, dict[str, str]]) -> Status:
    path, entry = folder / file.path, known.get(file.path)
    if not path.is_file():
        return Status(file, "absent", "", None)
    if entry is None:
        return Status(file, "unchecked", "", None)
    size = path.stat().st_size
    if size != int(entry["bytes"]):
        reason = f"has {size} bytes and had {entry['bytes']}"
        return Status(file, "damaged", reason, entry["sha256"])
    return Status(file, "whole", "", entry["sha256"])


def _checked(file: File, folder: Path, origin: str) -> Status:
    """Compare one file with the manifest and the record; record it if it is new and right."""
    path, known = folder / file.path, _record(folder)
    if not path.is_file():
        return Status(file, "absent", "", None)
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    entry = known.get(file.path)
    expected = file.sha256 or (entry["sha256"] if entry else found)
    if found != expected:
        source = "the manifest" if file.sha256 else "what was first seen here"
        reason = f"has sha256 {found}, {source} says {expected}"
        return Status(file, "damaged", reason, found)
    size = str(path.stat().st_size)
    if entry is None or entry["sha256"] != found or entry["bytes"] != size:
        trust = "known beforehand" if file.sha256 else "trusted on first sight"
        known[file.path] = {"sha256": found, "bytes": size, "from": origin, "checksum": trust}
        atomic.write(folder / RECORD, json.dumps(known, indent=2, sort_keys=True) + "\n")
    return Status(file, "whole", "", found)


def _accept(file: File, folder: Path, origin: str) -> None:
    """Check what has just arrived; what is wrong does not stay."""
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
            f"{path} is no record of weights; delete it, and `python -m tasks weights --check` "
            "takes the checksums again"
        ) from None
    return content


def _ask_for_room(files: Sequence[File], folder: Path) -> None:
    needed = _SLACK * sum(file.megabytes for file in files)
    with atomic.clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e6
    if needed > free:
        raise ArtifactError(
            f"the weights need {_size(needed)}, the disk of {folder} has {_size(free)} free; "
            "free some, name fewer metrics, or point ATELIER_WEIGHTS to a larger disk"
        )


def _download(file: File, target: Path) -> Iterator[float]:
    """Yield how many megabytes are there, until the file is."""
    partial = target.with_name(f"{target.name}.partial")
    with atomic.clear_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            if answer.status != 206:
                start = 0  # the server sends all of it again
            whole = start + int(answer.headers.get("Content-Length", 0))
            with atomic.clear_disk_errors(target), partial.open("ab" if start else "wb") as out:
                while block := answer.read(_CHUNK):
                    out.write(block)
                    start += len(block)
                    yield start / 1e6
        if start < whole:  # http.client says nothing when a connection ends early
            raise ConnectionError(f"{start} of {whole} bytes arrived")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # all of it is here already
            raise _unreachable(file, error) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(file, error) from None
    partial.replace(target)


def _unreachable(file: File, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{file.url} could not be fetched ({error}); what arrived is kept, and the same "
        "command goes on. On a machine without a network, bring the file in a folder, as "
        f"{file.path}, and run `python -m tasks weights --fetch --from FOLDER`"
    )


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    with atomic.clear_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(target)
