"""Measured results of dvc.lock's models, as the report wrote them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from atelier.config.profile import Profile
from tasks.run import paths

BASE, THETA1 = "base", "theta1"  # candidates, as the report names them
NO_THETA = (BASE, THETA1, "theta1+pos")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the report wrote.

    Attributes:
        md5: Of the file.
        suites: The metrics of each painter.
        captions: A hash of what was painted and by whom it was judged; two models with the
            same may be compared by their numbers.
    """

    md5: str
    suites: Mapping[str, Mapping[str, float]]
    captions: str = ""

    def passes(self, painter: str) -> bool:
        """Say whether a painter's FID is no worse than the base's."""
        if not {painter, BASE} <= self.suites.keys():
            return False
        mine, bases = (self.suites[name].get("fid") for name in (painter, BASE))
        return mine is not None and bases is not None and mine <= bases


def read(
    lock: Mapping[str, Any], profile: Profile | None, *, evaluating: bool = False
) -> Measured | None:
    """Return the report's results, if they are of the weights in dvc.lock."""
    file = paths.SUITES
    if not file.is_file() or not (evaluating or _fresh(lock, file)):
        return None
    content = file.read_bytes()
    suites = {
        painter: {name: float(value) for name, value in suite.items() if value is not None}
        for painter, suite in json.loads(content).items()
    }
    return Measured(md5(content), suites, _captions(profile) if profile else "")


def _captions(profile: Profile) -> str:
    """Return a hash of captions, noise, criteria and judge, by which models are compared."""
    asked = [str(profile.generate.seed), str(profile.annotate.annotator)]
    files = [paths.PLOTS / "prompts.csv", paths.JUDGED_BY]
    asked += [md5(file.read_bytes()) for file in files if file.is_file()]
    return md5(" ".join(asked).encode())


def _fresh(lock: Mapping[str, Any], file: Path) -> bool:
    """Say whether ``file`` is what dvc.lock has, measured on the weights that it has."""
    made = {
        out["path"]: out["md5"] for name in ("sft", "cpo") for out in _rows(lock, name, "outs")
    }
    used = {dep["path"]: dep["md5"] for dep in _rows(lock, "report", "deps")}
    outs = {out["path"]: out["md5"] for out in _rows(lock, "report", "outs")}
    stale = any(made[path] != md5 for path, md5 in used.items() if path in made)
    return not stale and outs.get(file.as_posix()) == md5(file.read_bytes())


def _rows(lock: Mapping[str, Any], stage: str, kind: str) -> list[dict[str, Any]]:
    return list(lock.get(stage, {}).get(kind, []))


def best(painters: Iterable[str], measured: Measured | None) -> str | None:
    """Return the θ with the lowest #A_neg among those whose FID is no worse than the base's."""
    if measured is None:
        return None
    fit = [name for name in painters if name != THETA1 and measured.passes(name)]
    return min(fit, key=lambda name: measured.suites[name]["negatives"], default=None)


def md5(content: bytes) -> str:
    """Return an md5 as DVC counts it, of a file's content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
