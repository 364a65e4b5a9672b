"""Measured results of dvc.lock's models, as the report wrote them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from atelier.config.evaluation import ChampionGuard
from atelier.config.profile import Profile
from tasks.run import paths

BASE, THETA1 = "base", "theta1"  # candidates, as the report names them
NO_THETA = (BASE, THETA1, "theta1+pos")
_LOWER_IS_BETTER = {"fid", "kid", "second_judge"}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the report wrote.

    Attributes:
        md5: Of the file.
        suites: The metrics of each painter.
        captions: A hash of what was painted and by whom it was judged; two models with the
            same may be compared by their numbers.
        guard: In what a θ may be no worse than the base, to be champion.
    """

    md5: str
    suites: Mapping[str, Mapping[str, float]]
    captions: str = ""
    guard: ChampionGuard = "fid"

    def has(self, painter: str) -> bool:
        """Say whether the guard of champions was measured of a painter."""
        return column(self.guard) in self.suites.get(painter, {})

    def passes(self, painter: str) -> bool:
        """Say whether a painter is no worse than the base in the guard of champions."""
        if not (self.has(painter) and self.has(BASE)):
            return False
        mine, bases = (self.suites[name][column(self.guard)] for name in (painter, BASE))
        return mine <= bases if self.guard in _LOWER_IS_BETTER else mine >= bases


def reported(profile: Profile, file: Path = paths.SUITES) -> Measured:
    """Return what a report's file says, whatever weights it is of."""
    content = file.read_bytes()
    suites = {
        painter: {name: float(value) for name, value in suite.items() if value is not None}
        for painter, suite in json.loads(content).items()
    }
    return Measured(md5(content), suites, _captions(profile), profile.report.champion)


def read(
    lock: Mapping[str, Any], profile: Profile, *, evaluating: bool = False
) -> Measured | None:
    """Return the report's results, if they are of the weights in dvc.lock."""
    file = paths.SUITES
    if not file.is_file() or not (evaluating or _fresh(lock, file)):
        return None
    return reported(profile)


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
    """Return the θ with the lowest #A_neg among those that the guard of champions lets pass."""
    if measured is None:
        return None
    fit = [name for name in painters if name != THETA1 and measured.passes(name)]
    return min(fit, key=lambda name: measured.suites[name]["negatives"], default=None)


def unmeasured(measured: Measured) -> str:
    """Say that the guard was not measured, how it would be, and what was measured instead."""
    entries, guard = suite(), measured.guard
    if guard == "second_judge":
        how = "set evaluate.second_judge"
    elif guard not in entries:
        how = f"name {guard} in evaluate.metrics"
    else:
        absent = entries[guard]["unavailable"]
        how = absent or "more pictures are needed (generate.prompts, the test part)"
    base = measured.suites.get(BASE, {})
    others = [one for one in get_args(ChampionGuard) if column(one) in base]
    instead = f", or let report.champion be {' or '.join(others)}" if others else ""
    said = f"{label(guard)} was not measured, in which a θ is compared with the base"
    return f"{said}: {how}{instead}"


def column(guard: str) -> str:
    """Return the name of a guard's number in the suites."""
    return "negatives_independent" if guard == "second_judge" else guard


def label(guard: str) -> str:
    """Return what a guard is called in tables."""
    if guard == "second_judge":
        return "#A_neg by the second judge"
    entry = suite().get(guard)
    return str(entry["label"]) if entry else guard.upper()


def suite() -> dict[str, Any]:
    """Return what was to be measured, and what was; of older evaluations nothing is known."""
    if not paths.SUITE.is_file():
        return {}
    found: dict[str, Any] = json.loads(paths.SUITE.read_text(encoding="utf-8"))
    return found


def md5(content: bytes) -> str:
    """Return an md5 as DVC counts it, of a file's content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
