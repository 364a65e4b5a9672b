"""The plan of a run: what each stage would do, and why, without running it.

DVC is called in this process, for all stages at once, because one process per stage costs
seconds each. If a stage would run, its outputs are unknown, so later stages are marked as
depending on it. If it would be restored from the run cache, its outputs are known, and the plan
continues with the later stages.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier.config.profile import read_profile, read_switch
from atelier.errors import AtelierError
from flows.dvc.stages import CODE, Stage
from tasks import code
from tasks.run import kept, paths
from tasks.tracking.mlflow_runs import flat

if TYPE_CHECKING:
    from dvc.dependency import Dependency
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

Verdict = Literal["up to date", "restore", "run", "depends"]
_REASONS_SHOWN = 6
_one_look = threading.Lock()  # DVC's caches in one process are not made for several threads


@dataclass(frozen=True)
class Prospect:
    """What would become of one stage.

    Attributes:
        stage: Its name.
        verdict: ``restore`` is from the run cache; ``depends`` on what a stage before it
            makes.
        reasons: What changed, a line each; or what it depends on.
        made_of: Where it would run, a hash of its command, dependencies and params.
    """

    stage: str
    verdict: Verdict
    reasons: tuple[str, ...]
    made_of: str | None = None


def look(order: Sequence[Stage], *, pull: bool = False) -> dict[str, Prospect]:
    """Return what would become of each stage, if these alone were brought up to date.

    Args:
        order: Stages, each after its needs; needs that are not in it are taken as they lie.
        pull: Ask DVC's remote, too, and fetch what can be restored from there.
    """
    from dvc.repo import Repo

    with _one_look, Repo(os.curdir) as repo:
        if pull:
            repo.stage_cache.pull(None)
        known = {stage.addressing: stage for stage in repo.index.stages}
        found: dict[str, Prospect] = {}
        made: dict[str, Any] = {}  # by path, hash and meta of what a restored stage brings
        for stage in order:
            found[stage.name] = _prospect(repo, known, stage, found, made, pull)
        return found


def _prospect(
    repo: "Repo",
    known: "Mapping[str, PipelineStage]",
    seen: Stage,
    found: Mapping[str, Prospect],
    made: dict[str, Any],
    pull: bool,
) -> Prospect:
    stage = known[seen.name]
    before = [found[need] for need in seen.needs if need in found]
    running = [one.stage for one in before if one.verdict in {"run", "depends"}]
    open_ends = [name for name in running if name != CODE]
    unsure = [out for name in open_ends for out in known[name].outs]
    changed = list(_changes(stage, made, unsure))
    if open_ends:
        about = [f"what {', '.join(open_ends)} will make"]
        return Prospect(seen.name, "run" if changed else "depends", _short(changed or about))
    lost = [f"{out} is {how}" for out in stage.outs for how in out.status().values()]
    if not changed and not lost:
        return Prospect(seen.name, "up to date", ())
    reasons = _short(changed or lost)
    made_of = _made_of(stage, made)
    restored = _restorable(repo, stage, pull) if made_of else None
    if not changed:
        restored = _there(repo, stage, pull)
    if restored is None:
        made |= _coded() if seen.name == CODE else {}
        restored_inputs = made.keys() & {str(dep) for dep in stage.deps}
        if made_of and all(Path(path).parent == paths.CODE for path in restored_inputs):
            reasons += _parts(seen.name)  # its inputs lie here as they will be
        return Prospect(seen.name, "run", reasons, made_of)
    made |= restored
    return Prospect(seen.name, "restore", reasons)


def _changes(
    stage: "PipelineStage", made: Mapping[str, Any], unsure: "Sequence[Output]"
) -> Iterator[str]:
    """Say what is not as it was when the stage ran last, a line for each thing."""
    if not any(out.hash_info for out in stage.outs):
        yield "it never ran"
        return
    if stage.cmd_changed:
        yield "its command changed"
    for dep in stage.deps:
        if any(Path(dep.fs_path).is_relative_to(out.fs_path) for out in unsure):
            continue
        if str(dep) in made:
            if made[str(dep)][0] != dep.hash_info:
                yield from _code_of(dep) or [f"{dep} will be another one"]
        else:
            yield from (dep.status() and _code_of(dep)) or _changes_of(dep)


def _changes_of(dep: "Dependency") -> Iterator[str]:
    for name, how in dep.status().items():
        if isinstance(how, dict):  # params: {setting: modified | new | deleted}
            yield from _settings(dep, how)
        else:
            yield f"{name} is {how}"


def _code_of(dep: "Dependency") -> list[str]:
    """Name the files of code and LoRAs that changed, where ``dep`` stands for them."""
    file = Path(str(dep))
    if file.parent != paths.CODE or not dep.hash_info:
        return []
    before = Path(dep.cache.oid_to_path(dep.hash_info.value))
    if not before.is_file():
        return []
    return [
        f"code: {path}" if path.suffix == ".py" else f"{path} is another one"
        for path in code.changed(file.stem, json.loads(before.read_text(encoding="utf-8")))
    ]


def _coded() -> dict[str, Any]:
    """Return the hashes of what the stage ``code`` will write: that takes less than asking."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    found = {}
    for file, content in code.contents().items():
        md5 = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
        found[file.as_posix()] = (HashInfo("md5", md5), Meta(size=len(content.encode())))
    return found


def _parts(stage: str) -> tuple[str, ...]:
    """Say which parts of a stage's result would be made, and which are kept."""
    from tasks.training import objective_keys

    if stage != "cpo":
        return ()
    try:
        wanted = objective_keys.of(read_profile(paths.profile(read_switch(paths.SWITCH))))
    except AtelierError:  # the stage will tell
        return ()
    making = kept.to_make(paths.CPO, wanted)
    keeping = [name for name in wanted if name not in making]
    said = (f"trains {', '.join(making) or 'none'}", f"keeps {', '.join(keeping)}")
    return said if keeping else said[:1]


def _settings(dep: Any, changed: Mapping[str, str]) -> Iterator[str]:
    """Say of each setting what it was and what it is."""
    was, now = dict(dep.hash_info.value or {}), dep.read_params()
    for section in changed:
        before, after = (flat({section: of.get(section)}) for of in (was, now))
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield f"{name}: {before.get(name, 'absent')} → {after.get(name, 'absent')}"


def _made_of(stage: "PipelineStage", made: Mapping[str, Any]) -> str | None:
    """Let ``stage`` know its dependencies as they are, or will be; return a hash of them."""
    for dep in stage.deps:
        if str(dep) in made:
            dep.hash_info, dep.meta = made[str(dep)]  # meta repeats the hash
        elif dep.exists:
            dep.save()
        else:
            return None
    parts = {str(dep): str(dep.hash_info.value) for dep in stage.deps}
    text = json.dumps([str(stage.cmd), parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _restorable(repo: "Repo", stage: "PipelineStage", pull: bool) -> dict[str, Any] | None:
    """Return what the run cache would bring, by path; None if it has no such run.

    DVC's own `repro --dry` looks for the run of dvc.lock, not for one of what lies in the
    working copy, and its lookup wants the dependencies to lie there already.
    """
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    if not (stage.cmd and stage.deps and stage.outs):
        return None  # DVC does not cache such a run
    key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    runs = sorted(
        Path(repo.stage_cache._get_cache_dir(key)).glob("*"),
        key=lambda run: run.stat().st_mtime,
    )
    entry = repo.stage_cache._load_cache(key, runs[-1].name) if runs else None
    if not entry:
        return None
    return _there(repo, repo.stage_cache._create_stage(entry, wdir=stage.wdir), pull)


def _there(repo: "Repo", made: "PipelineStage", pull: bool) -> dict[str, Any] | None:
    """Return the hashes of what was made, if the cache, or the remote, has all of it."""
    from dvc.exceptions import CheckoutError, DvcException

    if pull and not made.outs_cached():
        with contextlib.suppress(DvcException, CheckoutError, FileNotFoundError):
            for objects in made.get_used_objs().values():
                repo.cloud.pull(objects)
    return _hashes(made.outs) if made.outs_cached() else None


def _hashes(outs: "Sequence[Output]") -> dict[str, Any]:
    return {str(out): (out.hash_info, out.meta) for out in outs}


def _short(reasons: Sequence[str]) -> tuple[str, ...]:
    """Return the first few, what a person set before what changed in files."""
    told = sorted(reasons, key=lambda reason: "→" not in reason)
    if len(told) <= _REASONS_SHOWN:
        return tuple(told)
    return (*told[:_REASONS_SHOWN], f"and {len(told) - _REASONS_SHOWN} more")
