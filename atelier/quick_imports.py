"""Quicker imports of diffusers and transformers: no list twice, nothing that is not used."""

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
    """Let a process list its installed distributions once.

    Both libraries ask for that list as they are imported, which reads the files of all of them:
    a third of a second each time. Packages that are installed while a process runs are not
    seen by it.
    """
    every = importlib.metadata.packages_distributions
    if not hasattr(every, "cache_info"):
        importlib.metadata.packages_distributions = functools.cache(every)


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
