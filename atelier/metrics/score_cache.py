"""Scores and features that are computed once: cached by picture and by what computed them.

A score is known by the sha256 of the picture's pixels, the caption where it is read, and the
metric with its version, weights and precision. The files only grow, a line a picture, so an
interrupted run loses at most a batch; a line that was cut is computed again.
"""

import contextlib
import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atelier import atomic, checksums
from atelier.images import Pixels
from atelier.metrics.about import Entry
from atelier.metrics.fid import Extractor, Features
from atelier.metrics.scorer import Scorer
from atelier.reporting import Report


def scored(
    entry: Entry,
    images: Sequence[Pixels],
    prompts: Sequence[str],
    *,
    load: Callable[[], Scorer],
    folder: Path,
    batch_images: int,
    report: Report,
) -> NDArray[np.float64]:
    """Return the score of each picture, float64 ``[N]``; only what is not known is computed.

    Args:
        entry: The metric, available.
        images: Pictures.
        prompts: What each was asked to show.
        load: Loads the network; not called if every score is known.
        folder: The cache.
        batch_images: Pictures scored at once.
        report: Told how many pictures are done.

    Raises:
        ValueError: The network gave a score that is no finite number.
    """
    file = folder / f"{entry.about.name}-{_identity(entry)}.jsonl"
    keys = [
        _key(image, prompt if entry.about.reads_prompt else None)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    known = _read(file)
    missing = list({key: place for place, key in enumerate(keys) if key not in known}.values())
    report(len(keys) - len(missing), {})
    scorer = load() if missing else None
    for start in range(0, len(missing), batch_images):
        assert scorer is not None
        places = missing[start : start + batch_images]
        found = scorer([images[place] for place in places], [prompts[p] for p in places])
        if found.shape != (len(places),) or not np.isfinite(found).all():
            raise ValueError(f"{entry.about.name} gave {found!r} for {len(places)} pictures")
        fresh = {keys[place]: float(value) for place, value in zip(places, found, strict=True)}
        _append(file, fresh)
        known |= fresh
        report(len(keys) - len(missing) + start + len(places), {})
    return np.array([known[key] for key in keys], dtype=np.float64)


class Remembered:
    """An extractor that computes the features of one set of pictures once."""

    def __init__(self, extractor: Extractor, folder: Path) -> None:
        self.name, self.identity = extractor.name, extractor.identity
        self._extractor, self._folder = extractor, folder

    def features(self, images: Sequence[Pixels]) -> Features:
        """Return the features of each picture, ``[N, D]``."""
        return self.known([_key(image, None) for image in images], images)

    def known(self, keys: Sequence[str], images: Sequence[Pixels]) -> Features:
        """Return the features of pictures that ``keys`` name, read only if they are not known.

        The whole set is one entry: in another batch a feature differs in its last digits, and
        the same pictures are to give the same FID.
        """
        digest = hashlib.sha256("\n".join([self.identity, *keys]).encode()).hexdigest()
        file = self._folder / f"{digest[:32]}.npy"
        known = file.with_suffix(".npy.sha256")
        if file.is_file() and not checksums.damaged(file, known):
            with contextlib.suppress(ValueError, EOFError):
                held: Features = np.load(file, allow_pickle=False)
                return held
        if file.is_file():
            warnings.warn(f"{file} was damaged on the disk and is made anew", stacklevel=2)
        found = self._extractor.features(images)
        known.unlink(missing_ok=True)
        atomic.write(file, _npy(found))
        checksums.write(file, known)
        return found


def _npy(array: Features) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _identity(entry: Entry) -> str:
    about = entry.about
    parts = [
        about.name,
        about.version,
        entry.dtype,
        json.dumps(dict(sorted(entry.files.items()))),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _key(image: Pixels, prompt: str | None) -> str:
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    if prompt is None:
        return digest.hexdigest()
    return f"{digest.hexdigest()} {hashlib.sha256(prompt.encode()).hexdigest()}"


def _read(file: Path) -> dict[str, float]:
    known: dict[str, float] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                key, value, *check = json.loads(line)
                if check and check != [_check(key, value)]:
                    continue  # damaged on the disk
                known[str(key)] = float(value)
            except (ValueError, TypeError):
                continue  # cut off in the middle
    return known


def _check(key: str, value: float) -> int:
    return zlib.crc32(f"{key} {value!r}".encode())


def _append(file: Path, fresh: dict[str, float]) -> None:
    with atomic.clear_disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        # A line that was cut ends here, so that it does not swallow the next one.
        cut = file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")
        lines = "".join(
            f"{json.dumps([key, value, _check(key, value)])}\n" for key, value in fresh.items()
        )
        with file.open("a", encoding="utf-8") as out:
            out.write(("\n" if cut else "") + lines)
