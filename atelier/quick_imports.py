"""Quicker imports of diffusers and transformers: no list twice, nothing that is not used."""

import collections
import contextlib
import functools
import gc
import importlib
import importlib.metadata
import sys
import types
from collections.abc import Iterator
from typing import Any

_STATISTICS = "scipy.stats"


def remember_distributions() -> None:
    """Let a process list its installed distributions once, and quickly.

    Both libraries ask for that list as they are imported, to see which packages there are.
    Python's own function reads the files of all distributions each time and makes an object
    of every path in them: half a second. Packages that are installed while a process runs are
    not seen by it.
    """
    every = importlib.metadata.packages_distributions
    if not hasattr(every, "cache_info"):
        importlib.metadata.packages_distributions = functools.cache(distributions)


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


def load_statistics_later() -> None:
    """Let ``scipy.stats`` be loaded when something of it is first asked for.

    Every scheduler of diffusers imports it, for one way of spacing steps that is not used here.
    """
    if _STATISTICS not in sys.modules:
        sys.modules[_STATISTICS] = _Later(_STATISTICS)


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
    """Stands for the module; Python's own LazyLoader loads one as soon as it is imported."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute != "__path__":
            raise AttributeError(attribute)  # who looks through all modules asks for nothing
        if sys.modules.get(_STATISTICS) is self:
            del sys.modules[_STATISTICS]
        return getattr(importlib.import_module("scipy.stats"), attribute)
