"""On-disk queue of MLflow calls made while the tracking server was unreachable.

A folder a stage run: ``header.json`` (what the run is), ``said.jsonl`` (a line for each thing
that was said, with its time) and the files that go with it. Nobody else touches a folder whose
stage still writes: it holds a lock that dies with its process.
"""

import contextlib
import fcntl
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from PIL import Image

from tasks.run import paths

FOLDER = paths.MLFLOW / "undelivered"
_HEADER, _SAID, _DONE, _LOCK = "header.json", "said.jsonl", "delivered", "lock"


class Outbox:
    """The folder of one stage run; made when the first thing could not be told."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{header['stage']}-{uuid.uuid4().hex[:6]}"
        self._folder = FOLDER / name
        self._folder.mkdir(parents=True)
        self._lock = _locked(self._folder)
        _write(self._folder / _HEADER, json.dumps(header))
        self._said = (self._folder / _SAID).open("a", encoding="utf-8")
        self._files = 0

    def metrics(
        self, values: Mapping[str, float], step: int | None, last: int, at: int
    ) -> None:
        """Keep a point of each curve; or a result, said after step ``last``."""
        self._say(at, kind="metrics", values=dict(values), step=step, last=last)

    def picture(self, name: str, picture: "Image.Image", step: int | None, at: int) -> None:
        """Keep a picture."""
        file = self._place() / "picture.png"
        picture.save(file)
        self._say(at, kind="picture", name=name, step=step, file=self._relative(file))

    def tags(self, values: Mapping[str, str]) -> None:
        """Keep what is no number."""
        self._say(kind="tags", values=dict(values))

    def file(self, path: Path) -> None:
        """Keep a copy of a file or folder, for it may change."""
        copy = self._place() / path.name
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copyfile(path, copy)
        self._say(kind="file", file=self._relative(copy))

    def end(self, status: str, products: Mapping[str, str], at: int) -> None:
        """Keep how the run ended, with the tags of what it made; let others deliver it."""
        self._say(at, kind="end", status=status, products=dict(products))
        self._said.close()
        self._lock.close()

    def _say(self, at: int | None = None, **line: Any) -> None:
        """Keep a line with its time in milliseconds: the one of a first, failed try, if any."""
        line["time"] = time.time_ns() // 1_000_000 if at is None else at
        self._said.write(json.dumps(line) + "\n")
        self._said.flush()

    def _place(self) -> Path:
        self._files += 1
        place = self._folder / f"{self._files:05}"
        place.mkdir()
        return place

    def _relative(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def waiting() -> list[Path]:
    """Return the folders that are to be delivered, the oldest first."""
    return sorted(path.parent for path in FOLDER.glob(f"*/{_HEADER}"))


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[dict[str, Any] | None]:
    """Hold a folder and yield its header; None while its stage, or another, has it."""
    try:
        lock = _locked(folder)
    except OSError:  # busy, or delivered by somebody in between
        yield None
        return
    with lock:
        header = folder / _HEADER
        yield json.loads(header.read_text(encoding="utf-8")) if header.is_file() else None


def rest(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what is not delivered yet, with its number; a line cut by a crash is left out."""
    done = folder / _DONE
    first = int(done.read_text(encoding="utf-8")) if done.is_file() else 0
    lines = (folder / _SAID).read_text(encoding="utf-8").split("\n")[:-1]
    for number, line in enumerate(lines[first:], first):
        said = json.loads(line)
        if "file" in said:
            said["file"] = folder / said["file"]
        yield number, said


def check_off(folder: Path, number: int) -> None:
    """Note that all up to ``number`` has arrived."""
    _write(folder / _DONE, str(number + 1))


def remember(folder: Path, header: Mapping[str, Any]) -> None:
    """Write the header again, with the run that was opened for it."""
    _write(folder / _HEADER, json.dumps(header))


def remove(folder: Path) -> None:
    """Remove what has arrived whole."""
    shutil.rmtree(folder)


def _locked(folder: Path) -> IO[str]:
    lock = (folder / _LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
