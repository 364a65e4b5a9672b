"""torchvision compatibility: lets a CUDA build be imported with a CPU build of torch.

Package indexes offer such pairs, and no version of torchvision on PyPI for Linux on x86-64 is a
CPU build. Then torchvision's library cannot be loaded, its two operators ``nms`` and ``qnms``
stay undeclared, and the import fails, also that of peft, clean-fid and most diffusers and
transformers models. Declaring them first is enough for transforms, models and datasets; box
suppression stays unavailable. If the library loads, nothing changes.

torch itself calls ``install`` at the end of its own import: pyproject.toml names it in the
entry point group ``torch.backends``, by which torch finds extensions. So it is in force in
every process of an environment that has atelier, also in one that imports diffusers alone.
Importing atelier calls it, too, for installations that are older than the entry point.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATOR = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets operators whose library is collected


class _Finder(MetaPathFinder):
    """Wakes when torchvision is first looked for, so that importing atelier stays free."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Declare what is missing, step aside, and let the ordinary finders answer."""
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        _declare_operators(spec)
        return spec


def install() -> None:
    """Watch for the first import of torchvision; a second call does nothing.

    If torchvision is just being imported, and has come as far as importing torch, its operators
    are declared at once.
    """
    watching = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if "torchvision" in sys.modules:
        if "torchvision.extension" not in sys.modules:  # which loads the operators
            _declare_operators(getattr(sys.modules["torchvision"], "__spec__", None))
    elif not watching:
        sys.meta_path.insert(0, _Finder())


def _declare_operators(found: ModuleSpec | None) -> None:
    if found is None or not found.submodule_search_locations or _declared:
        return
    torch: Any = importlib.import_module("torch")
    try:
        torch.ops.load_library(str(Path(found.submodule_search_locations[0]) / "_C.so"))
    except OSError:
        if not _declared:  # the import of torch may have called `install`
            declared = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                declared.define(operator + _OPERATOR)
            _declared.append(declared)
