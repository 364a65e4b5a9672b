"""``atelier data``: draws the starter paintings into ``data/`` if it is empty."""

import csv
import io
import shutil
import sys
from pathlib import Path

import yaml

from atelier.atomic import clear_disk_errors
from atelier.errors import ArtifactError
from atelier.starter import drawings
from tasks.run import paths, progress

CAPTIONS = "captions.csv"
PIN = Path("data.dvc")
# What data.dvc says of the starter paintings; another value there pins somebody's own.
STARTER_MD5 = "d6d353b489656ea2384b3e7db1a26014.dir"


def run() -> None:
    """Draw the starter paintings, unless ``paths.DATA`` holds a file: then it is the user's.

    Raises:
        ArtifactError: ``data.dvc`` pins other paintings, which cannot be drawn.
        DiskError: They cannot be written; nothing is left behind.
    """
    if holds_something(paths.DATA):
        _say(f"{paths.DATA} is there already, and is left as it is")
        return
    _refuse_another_pin()
    partial = paths.DATA.with_name(f".{paths.DATA.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    try:
        with clear_disk_errors(paths.DATA):
            draw(partial, drawings.PAINTINGS, drawings.PAINTINGS_SEED)
            if paths.DATA.exists():
                shutil.rmtree(paths.DATA)  # empty folders only, see above
            partial.rename(paths.DATA)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _say(f"{paths.DATA} holds {drawings.PAINTINGS} starter paintings")


def draw(folder: Path, count: int, seed: int) -> None:
    """Write ``count`` paintings and their captions into a new folder.

    The poles stay with the painter: no stage could read them from what is written.
    """
    folder.mkdir(parents=True)
    rows = [("file", "caption", "artwork")]
    with progress.bar("drawing", total=count, unit="images") as report:
        for number, drawing in enumerate(drawings.paintings(count, seed), start=1):
            stem = f"{drawing.subject.replace(' ', '-')}-{number:04}"
            (folder / f"{stem}.png").write_bytes(drawings.png(drawing.pixels))
            rows.append((f"{stem}.png", drawing.caption, stem))
            report(number, {})
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    (folder / CAPTIONS).write_text(table.getvalue(), encoding="utf-8", newline="\n")


def holds_something(folder: Path) -> bool:
    """Say whether anything but empty folders would be lost with ``folder``."""
    if folder.is_symlink() or folder.is_file():
        return True
    return any(path.is_symlink() or not path.is_dir() for path in folder.rglob("*"))


def _refuse_another_pin() -> None:
    if not PIN.exists():
        return
    pinned = yaml.safe_load(PIN.read_text(encoding="utf-8"))["outs"][0]["md5"]
    if pinned != STARTER_MD5:
        raise ArtifactError(
            f"{paths.DATA} is empty or absent, and {PIN} pins other paintings than the "
            f"starter's (md5 {pinned}); run `dvc pull` to fetch them, or remove {PIN} to have "
            "the starter paintings drawn"
        )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
