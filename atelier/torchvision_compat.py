"""torchvision compatibility: lets a CUDA build be imported with a CPU build of torch.

Package indexes offer such pairs. Then torchvision's library cannot be loaded, its two operators
``nms`` and ``qnms`` stay undeclared, and the import fails, also that of peft, clean-fid and
most transformers models. Declaring them first is enough for transforms, models and datasets;
box suppression stays unavailable. If the library loads, nothing changes.
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
        if spec is not None and spec.submodule_search_locations:
            _declare_operators(Path(spec.submodule_search_locations[0]) / "_C.so")
        return spec


def install() -> None:
    """Watch for the first import of torchvision; a second call does nothing."""
    watching = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if not watching and "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


def _declare_operators(library: Path) -> None:
    torch: Any = importlib.import_module("torch")
    try:
        torch.ops.load_library(str(library))
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            declared.define(operator + _OPERATOR)
        _declared.append(declared)
