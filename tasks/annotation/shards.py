"""Shards of ``annotate``: its pictures inspected by several workers.

Inspecting one picture is a pure function of its bytes and of the annotator, and the stage
keeps a journal of it under ``paths.RESUME``. Workers fill that journal, and the stage goes on
from it as after an interruption: byte for byte what one process makes. A worker has a clone of
its own and refuses a shard if that clone differs.
"""

import hashlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import atelier
from atelier import images
from atelier.annotators import inspection
from atelier.annotators.inspection import Inspected, Inspector
from atelier.config.fields import Params
from atelier.config.profile import Profile, read_in_force
from atelier.criteria import annotations
from atelier.criteria.annotations import Hash
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import parse
from atelier.errors import ArtifactError
from tasks import annotate
from tasks.annotation import annotator
from tasks.run import paths


class ShardPicture(Params):
    """One picture, and what its file must hold where it is judged."""

    file: str
    image: Hash


class Shard(Params):
    """What one worker judges at once.

    Attributes:
        name: Its place among the others, as 3/8.
        judge: ``Inspector.fingerprint``: criteria, annotator and limits.
        code: ``code()`` of who asks.
        pictures: Those that the journal does not know.
    """

    name: str
    judge: str
    code: str
    pictures: list[ShardPicture]


def plan(count: int) -> list[Shard]:
    """Part the pictures that are not judged yet into ``count`` shards of nearly one size.

    Every ``count``-th picture goes to the same shard: neighbours in the corpus are often alike
    in size, and so in cost. Fewer pictures than shards make fewer shards.

    Raises:
        ArtifactError: There is no picture in ``paths.DATA``.
        ParamsError: The profile or what it names does not fit.
    """
    profile = read_in_force(paths.PARAMS)
    inspector = _inspector(profile)
    entries = annotate.corpus_in_force(profile).entries
    known = inspection.known_images(annotate.work_of(inspector) / annotate.JOURNAL)
    waiting = [one for one in _pictures(entries) if one.image not in known]
    parts = [part for part in (waiting[start::count] for start in range(count)) if part]
    return [
        Shard(
            name=f"{number}/{len(parts)}",
            judge=inspector.fingerprint(),
            code=code(),
            pictures=part,
        )
        for number, part in enumerate(parts, start=1)
    ]


def judge(shard: Shard) -> str:
    """Judge a shard's pictures, and return the lines of the journal. Runs in a worker.

    Raises:
        ArtifactError: This clone has other code, settings or pictures than who asks.
    """
    inspector = _inspector(read_in_force(paths.PARAMS))
    _refuse_another_clone(shard, inspector)
    return annotations.lines(_judged(one, inspector) for one in shard.pictures)


def take_in(lines: str) -> int:
    """Put what a worker found into the stage's journal; return how many pictures."""
    found = [Inspected.model_validate_json(line) for line in lines.splitlines()]
    work = annotate.work_of(_inspector(read_in_force(paths.PARAMS)))
    inspection.add(work / annotate.JOURNAL, found)
    return len(found)


def code() -> str:
    """Return a hash of the library's sources, of what reads pixels, and of the machine's kind.

    Where it is the same, one picture gets the same judgements to the last bit.
    """
    root = Path(atelier.__file__).parent
    digest = hashlib.sha256(f"{platform.machine()} {sys.version_info[:2]}".encode())
    for package in ("numpy", "pillow", "scipy", "scikit-image"):
        digest.update(f" {package} {version(package)}".encode())
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _inspector(profile: Profile) -> Inspector:
    tree = parse(paths.CRITERIA / profile.annotate.criteria)
    return annotator.of_data(profile, tree).inspector


def _pictures(entries: Sequence[Entry]) -> list[ShardPicture]:
    """The corpus, each bytes once; what cannot be opened is the stage's own to tell."""
    found: dict[str, ShardPicture] = {}
    for entry in entries:
        try:
            image = images.sha256(paths.DATA / entry.file)
        except OSError:
            continue
        found.setdefault(image, ShardPicture(file=entry.file, image=image))
    return list(found.values())


def _refuse_another_clone(shard: Shard, inspector: Inspector) -> None:
    where = f"the worker in {platform.node()}:{Path.cwd()}"
    if shard.code != code():
        raise ArtifactError(
            f"{where} has another code, Python or imaging library than the clone that asks it, "
            "and might judge otherwise; bring it to the same commit, `pip install -c "
            "constraints.txt -e '.[scale]'`, and start it again"
        )
    if shard.judge != inspector.fingerprint():
        raise ArtifactError(
            f"{where} has other settings or criteria than the clone that asks it; bring "
            f"{paths.PARAMS}/ to the same commit, and start it again"
        )


def _judged(one: ShardPicture, inspector: Inspector) -> Inspected:
    path = paths.DATA / one.file
    try:
        image = images.sha256(path)
    except OSError as error:
        raise ArtifactError(
            f"{platform.node()}:{path.absolute()} cannot be opened ({error.strerror}); run "
            "`dvc pull data` in the clone of this worker"
        ) from None
    if image != one.image:
        raise ArtifactError(
            f"{platform.node()}:{path.absolute()} is not the picture that was asked about; run "
            "`dvc pull data` in the clone of this worker"
        )
    return inspector.inspect(path, image)
