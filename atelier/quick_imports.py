"""Quicker imports of diffusers and transformers: no list twice, nothing that is not used."""

import collections
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.metadata
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from typing import Any

_Execute = Callable[[types.ModuleType], None]
_OPTIMIZE = "scipy.optimize"
_WAITING = ("scipy.stats", "scipy.integrate")


def prepare() -> None:
    """Make what follows quicker; to be called before transformers and diffusers are imported.

    * Both list the installed distributions, to see which packages there are. Python's own
      function reads the files of all distributions each time and makes an object of every path
      in them: half a second. They are listed once, by lines; packages that are installed while
      a process runs are not seen by it.
    * transformers lists what the files of its models offer: once, not twice.
    * Every scheduler of diffusers imports ``scipy.stats``, for one way of spacing steps, one of
      them ``scipy.integrate``, and transformers ``scipy.optimize``, for losses of detectors.
      Nothing of it is used here: it is loaded when something of it is first asked for.
    """
    if not hasattr(importlib.metadata.packages_distributions, "cache_info"):
        importlib.metadata.packages_distributions = functools.cache(distributions)
    for name in _WAITING:
        if name not in sys.modules:
            sys.modules[name] = _Later(name)
    if not any(isinstance(finder, _Changing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Changing())


def distributions() -> dict[str, list[str]]:
    """Return the distributions of each package that can be imported, by its name."""
    found = collections.defaultdict(list)
    for one in importlib.metadata.distributions():
        packages = (one.read_text("top_level.txt") or "").split() or _packages_of(one)
        name = _name_of(one) if packages else ""
        for package in packages:
            found[package].append(name)
    return dict(found)


def _packages_of(one: importlib.metadata.Distribution) -> set[str]:
    """What a distribution without a list of its packages installs, by its files."""
    record = one.read_text("RECORD")
    if record is None or '"' in record:
        files = [str(file) for file in one.files or ()]
    else:
        files = [line.partition(",")[0] for line in record.splitlines()]
    modules = (file for file in files if file.endswith(".py"))
    first = (file.partition("/")[0].removesuffix(".py") for file in modules)
    return {name for name in first if "." not in name}


def _name_of(one: importlib.metadata.Distribution) -> str:
    """A distribution's name, without parsing all that its file says."""
    for line in (one.read_text("METADATA") or "").splitlines():
        if line.startswith("Name: "):
            return line.removeprefix("Name: ").strip()
    return str(one.metadata["Name"])


def _listing_once(execute: _Execute, module: Any) -> None:
    """Execute what lists the files of transformers' models; let it forget none.

    It remembers 128 folders and walks through 549, so that nothing of the list that one module
    asks for is left when the next one does.
    """
    execute(module)
    name = "create_import_structure_from_path"
    listing = getattr(getattr(module, name, None), "__wrapped__", None)
    if listing is not None:  # as it is in the versions that remember too little
        setattr(module, name, functools.cache(listing))


def _matching_later(execute: _Execute, module: Any) -> None:
    """Execute transformers' losses, which get a function of ``scipy.optimize`` unloaded."""
    if _OPTIMIZE in sys.modules:
        execute(module)
        return
    later = _Later(_OPTIMIZE, functions={"linear_sum_assignment"})
    sys.modules[_OPTIMIZE] = later
    try:
        execute(module)
    finally:
        if sys.modules.get(_OPTIMIZE) is later:
            del sys.modules[_OPTIMIZE]


_CHANGED: Mapping[str, Callable[[_Execute, Any], None]] = {
    "transformers.utils.import_utils": _listing_once,
    "transformers.loss.loss_utils": _matching_later,
}


class _Changing(MetaPathFinder):
    """Finds modules where they are, and has something done as they are executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        del target
        if name not in _CHANGED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            loader: Any = spec.loader
            loader.exec_module = functools.partial(_CHANGED[name], loader.exec_module)
        return spec


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python's garbage collector rests; it never looks at what was made there.

    An import makes hundreds of thousands of objects that stay, and hardly any garbage. The
    collector walks over all of them again and again meanwhile: of four seconds, one.
    """
    resting = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if not resting:
            gc.enable()


class _Later(types.ModuleType):
    """Stands for a part of scipy; Python's LazyLoader loads one as soon as it is imported.

    Args:
        name: The module's.
        functions: What is not asked for but when it is called.
    """

    def __init__(self, name: str, functions: Collection[str] = ()) -> None:
        super().__init__(name)
        self._functions = functions

    def __getattr__(self, attribute: str) -> Any:
        # Who looks through all modules asks for nothing. Who asks for the path wants a module
        # below this one, or, before it takes a function, to see whether there are such.
        if attribute.startswith("__") and (attribute != "__path__" or self._functions):
            raise AttributeError(attribute)
        part = self.__name__.removeprefix("scipy.")
        if attribute in self._functions:
            return lambda *args, **more: getattr(_loaded(part), attribute)(*args, **more)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(_loaded(part), attribute)


def _loaded(part: str) -> types.ModuleType:
    return importlib.import_module(f"scipy.{part}")
