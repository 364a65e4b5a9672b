"""Parts of the results of ``evaluate``: reused from an earlier run, or computed."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from atelier import atomic
from tasks.run import kept, paths

_SPARE = paths.RESUME / "evaluate"  # whole parts, should the stage be interrupted


class Parts:
    """The parts of ``paths.EVALUATE``."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = keys
        self._found = kept.take(paths.EVALUATE, keys, spare=_SPARE)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return which of some parts are to be made."""
        return [name for name in names if name not in self._found]

    def put(self, name: str, file: str, content: bytes | str) -> None:
        """Keep a part that was made, which has one file.

        Raises:
            DiskError: It cannot be written.
        """
        folder = _SPARE / name
        shutil.rmtree(folder, ignore_errors=True)
        atomic.write(folder / file, content)
        kept.seal(folder, self._keys[name])
        atomic.copy_tree(folder, paths.EVALUATE / name)

    def file(self, name: str, file: str) -> Path:
        """Return where a part's file lies."""
        return paths.EVALUATE / name / file

    def done(self) -> None:
        """Forget what an interrupted stage would have gone on from."""
        shutil.rmtree(_SPARE, ignore_errors=True)
