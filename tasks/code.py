"""Stage ``code``: hashes of what each stage's code does, without comments and file places.

A stage of dvc.yaml depends on its file of ``artifacts/code``, and on no file of code. The file
also has the sha256 of the LoRA that the stage's trainings begin as, if there is one. DVC runs
this stage whenever a file of the packages changed. What it writes stays byte for byte the same
when only comments, docstrings, formatting, annotations of functions or the place of a module
changed, so that nothing runs after it. No list of files is kept by hand, and none can be
forgotten.

The code of a stage is every module that ``tasks.<stage>`` imports, directly or not, for more
than type checking, in functions as well, with the ``__init__`` of each package on the way. A
stage that reads the profile's objectives has their modules beside that, each counted apart: a
changed loss concerns only profiles that train with it. The modules named here are left out,
with what is reached through them alone: they cannot change what a stage makes of its inputs.

* ``TELLING``: they tell people what happens; a new progress bar must not train again;
* ``PLACING``: they say where files lie, and write them whole; a path that moves is in dvc.yaml
  anyway;
* ``CHECKING``: they refuse bad input; of what they let through, the values are params of the
  stage, which DVC compares one by one.
"""

import functools
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from atelier import atomic, checksums, reading
from atelier.errors import ArtifactError
from tasks.run import code_tree, paths, pins, progress
from tasks.run.code_tree import PACKAGES, Module, hashed
from tasks.training import keys

STAGES = ("annotate", "split", "sft", "cpo", "generate", "evaluate", "report")
TELLING = frozenset(
    {
        "atelier.models.costs.utilization",
        "atelier.out_of_memory",
        "atelier.reporting",
        "tasks.commands.table",
        "tasks.run.machine",
        "tasks.run.progress",
        "tasks.tracking.mlflow_runs",
        "tasks.tracking.registry",
        "tasks.training.validation_images",
    }
)
PLACING = frozenset({"atelier.atomic", "tasks.run.paths"})
CHECKING = frozenset(
    {
        "atelier.config.messages",
        "atelier.config.objectives",
        "atelier.config.profile",
        "atelier.errors",
        "tasks.code",
        "tasks.evaluation.precheck",
    }
)
_LEFT_OUT = TELLING | PLACING | CHECKING
_ORIGINS = "origins"  # key of the LoRAs in a stage's file
_OBJECTIVES = "atelier.objectives"  # the package with a module for each objective
_ROOT = Path(__file__).parents[1]

Code = dict[str, Any]  # {"common": …, "objectives": {kind: …}, "origins": {file: sha256}}


def run() -> None:
    """Write a file for each stage under ``paths.CODE``.

    Raises:
        ArtifactError: A module is no Python, or imports another by a name that it computes;
            or the profile names a base that is not in its own folder.
    """
    _expect_a_base()
    for file, content in contents().items():
        atomic.write(file, content)


def packages() -> "Packages":
    """Return our packages as they are now; a process reads files that did not change once."""
    states = (
        (file, file.stat().st_mtime_ns, file.stat().st_size)
        for package in PACKAGES
        for file in (_ROOT / package).rglob("*.*")
        if file.suffix != ".pyc"
    )
    return _unchanged(tuple(sorted(states)))


@functools.lru_cache(maxsize=1)
def _unchanged(files: tuple[tuple[Path, int, int], ...]) -> "Packages":
    del files  # what is read, and when it was last changed; here they are only the key
    return Packages(_ROOT)


def now(stage: str, kinds: Collection[str] = ()) -> Code:
    """Return what the code of a stage does now, for keys of what it makes.

    Raises:
        ArtifactError: As for ``run``.
    """
    return packages().of_stage(stage, kinds)


def contents() -> dict[Path, str]:
    """Return what the files of ``paths.CODE`` should say now.

    Raises:
        ArtifactError: As for ``run``.
    """
    every, kinds = packages(), _trained_kinds()
    return {
        _file(stage): _json(every.of_stage(stage, kinds) | _origins(stage)) for stage in STAGES
    }


def check(stage: str) -> None:
    """Refuse to run a stage whose file of ``paths.CODE`` is of other code than this.

    DVC would note the wrong code with the results. It happens to ``dvc repro --single-item``
    after a change of the code, and to a run during which the code is changed.

    Raises:
        ArtifactError: It is of other code.
    """
    file = _file(stage)
    if not file.is_file():
        return
    if file.read_text(encoding="utf-8") != _json(
        now(stage, _trained_kinds()) | _origins(stage)
    ):
        raise ArtifactError(
            f"{file} is of other code, or of another LoRA to begin as, than the stage would "
            f"run now; run `dvc repro {stage}`, which brings it up to date first. Everything "
            "finished before this is kept"
        )


def changed(stage: str, before: Code) -> list[Path]:
    """Return the files of a stage, of code or of a LoRA, that were not part of ``before``."""
    known = {tree for told in _told(before) for tree in told["modules"]}
    code = packages().trees(stage, _trained_kinds())
    loras = _origins(stage).get(_ORIGINS, {})
    return [
        *(file.relative_to(_ROOT) for file, tree in code.items() if tree not in known),
        *(Path(file) for file in loras if before.get(_ORIGINS, {}).get(file) != loras[file]),
    ]


def _told(code: Code) -> list[dict[str, Any]]:
    return [code["common"], *code["objectives"].values()]


class Packages:
    """The modules of our packages below a folder; each is read once."""

    def __init__(self, root: Path) -> None:
        files = (file for package in PACKAGES for file in (root / package).rglob("*.py"))
        self._files = {_name(file.relative_to(root)): file for file in files}
        self._modules: dict[str, Module] = {}

    def of_stage(self, stage: str, kinds: Collection[str]) -> Code:
        """Return what a stage's code does: in common, and for each objective of ``kinds``.

        Raises:
            ArtifactError: A module is no Python, or imports another by a computed name.
        """
        common, objectives = self.modules(stage, kinds)
        return {
            "common": self._told(common),
            "objectives": {kind: self._told(own) for kind, own in objectives.items()},
        }

    def modules(
        self, stage: str, kinds: Collection[str]
    ) -> tuple[set[str], dict[str, set[str]]]:
        """Return the modules of a stage, and what each objective adds to them."""
        common = self.closure([f"tasks.{stage}"])
        asks = any(self._module(name).asks_objectives for name in common)
        return common, {
            kind: self.closure(self._of_objective(kind), known=common)
            for kind in sorted(kinds)
            if asks
        }

    def closure(self, start: Iterable[str], known: Collection[str] = ()) -> set[str]:
        """Return the modules that ``start`` runs, themselves included, without ``known``."""
        found: set[str] = set()
        waiting = list(start)
        while waiting:
            name = waiting.pop()
            if name in self._files and name not in found | _LEFT_OUT | set(known):
                found.add(name)
                waiting += [target for _, target in self._module(name).imports]
                waiting += _packages_of(name)
        return found

    def trees(self, stage: str, kinds: Collection[str]) -> dict[Path, str]:
        """Return the hash of each module of a stage, by its file."""
        common, objectives = self.modules(stage, kinds)
        every = common.union(*objectives.values())
        return {self._files[name]: self._module(name).tree for name in sorted(every)}

    def hash_of(self, *modules: str) -> str:
        """Return a hash of modules with all that they import, for keys of what they make."""
        return hashed([_json(self._told(self.closure(modules)))])

    def _told(self, names: Collection[str]) -> dict[str, str | list[str]]:
        """What stands in a stage's file about modules: neither a name nor a place."""
        links = {
            f"{self._module(name).tree} {brought} {self._module(target).tree}"
            for name in names
            for brought, target in self._module(name).imports
            if target not in _LEFT_OUT
        }
        trees = {self._module(name).tree for name in names}
        return {"imports": hashed(sorted(links)), "modules": sorted(trees)}

    def _of_objective(self, kind: str) -> list[str]:
        own = [name for name in self._files if name.rpartition(".")[0] == _OBJECTIVES]
        return [name for name in own if kind in self._module(name).kinds]

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            self._modules[name] = code_tree.read(self._files[name], self._files)
        return self._modules[name]


def _file(stage: str) -> Path:
    return paths.CODE / f"{stage}.json"


def _json(code: Code) -> str:
    return json.dumps(code, indent=1, sort_keys=True) + "\n"


def _name(file: Path) -> str:
    """The dotted name of a module's file."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _packages_of(module: str) -> list[str]:
    """The packages around a module, whose ``__init__`` runs before it."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _trained_kinds() -> set[str]:
    """The kinds of objectives in the profile in force; whether it fits, the stages check."""
    try:
        name = _values(paths.SWITCH)["profile"]
        objectives = _values(paths.profile(name))["cpo"]["objectives"].values()
        return {str(one["objective"]) for one in objectives}
    except (KeyError, TypeError, AttributeError):
        return set()


def _origins(stage: str) -> dict[str, dict[str, str]]:
    """The files of LoRAs that the stage's trainings begin as, with their sha256; mostly none.

    They stand here, and not in the stage's own dependencies, because a folder that holds all of
    them would train every profile again when one more LoRA is put there.

    Raises:
        ArtifactError: A folder holds several LoRAs, or a pickle.
    """
    files = {file for init in _inits().get(stage, ()) for file in keys.origin(init)}
    found = {file.as_posix(): checksums.sha256(file) for file in sorted(files)}
    return {_ORIGINS: found} if found else {}


def _inits() -> dict[str, set[str]]:
    """What trainings of the profile in force begin as, by stage; the stages check it."""
    try:
        profile = _values(paths.profile(_values(paths.SWITCH)["profile"]))
        objectives = profile["cpo"]["objectives"].values()
        found = {
            "sft": {profile["sft"].get("init", "base")},
            "cpo": {one.get("init", "base") for one in objectives},
        }
    except (KeyError, TypeError, AttributeError):
        return {}
    return {
        stage: {init for init in inits if isinstance(init, str)}
        for stage, inits in found.items()
    }


def _expect_a_base() -> None:
    """Say that the base is absent before hours of judging: DVC says it only at sft.

    Raises:
        ArtifactError: The profile names a base that is not in its own folder, as a copy of
            another profile does: that only an edit mends.
    """
    try:
        name = _values(paths.SWITCH)["profile"]
        source = _values(paths.profile(name))["model"]["source"]
    except (KeyError, TypeError):
        return  # whether it fits, the stages check
    why = pins.absent_base(name, source)
    if why is None:
        return
    if pins.is_elsewhere(name, source):
        raise ArtifactError(why)
    progress.say(why)


def _values(file: Path) -> Any:
    try:
        return reading.yaml_values(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, reading.UnreadableError):
        return None
