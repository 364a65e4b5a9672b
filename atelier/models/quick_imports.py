"""Quicker imports of diffusers and transformers: no list twice, nothing that is not used."""

import functools
import importlib
import importlib.metadata
import sys
import types
from typing import Any


def remember_distributions() -> None:
    """Let a process list its installed distributions once.

    Both libraries ask for that list as they are imported, which reads the files of all of them:
    a third of a second each time. Packages that are installed while a process runs are not
    seen by it.
    """
    every = importlib.metadata.packages_distributions
    if not hasattr(every, "cache_info"):
        importlib.metadata.packages_distributions = functools.cache(every)


def load_later(name: str) -> None:
    """Let a module be loaded when something of it is first asked for.

    Every scheduler of diffusers imports ``scipy.stats``, for one way of spacing steps that
    nothing here uses.
    """
    if name not in sys.modules:
        sys.modules[name] = _Later(name)


class _Later(types.ModuleType):
    """Stands for a module; Python's own LazyLoader loads it as soon as it is imported."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute != "__path__":
            raise AttributeError(attribute)  # who looks through all modules asks for nothing
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)
