"""``atelier data unpack``: a packed data set, written as pictures and captions."""

import json
import shutil
import sys
from pathlib import Path

from atelier import atomic
from atelier.criteria import packed
from atelier.errors import ArtifactError
from tasks.commands import data
from tasks.run import progress

TABLE = "metadata.jsonl"


def run(source: Path, out: Path, image: str | None, caption: str | None) -> None:
    """Write each picture of a data set as the file that it is, and a table of captions.

    Args:
        source: A folder with parquet or Arrow files, or one of them.
        out: A folder that is absent or empty.
        image: Column of pictures; None takes the usual one.
        caption: Column of captions; likewise.

    Raises:
        ArtifactError: There is no data set, it is damaged, or ``out`` holds something.
        DiskError: It cannot be written; nothing is left behind.
    """
    if data.holds_something(out):
        raise ArtifactError(
            f"{out} is not empty; name a new folder, or move what is in it away"
        )
    found = packed.files(source)
    columns = packed.columns(found[0], image, caption)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    try:
        with atomic.clear_disk_errors(out):
            partial.mkdir(parents=True)
            written, empty = _write(found, columns, partial)
            if out.exists():
                shutil.rmtree(out)  # empty folders only, see above
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    read = f"pictures from the column {columns.image}"
    read += f", captions from {columns.caption}" if columns.caption else ", without captions"
    _say(f"{out} holds {written} pictures and {TABLE}: {read}")
    if empty:
        _say(f"{empty} rows hold no picture and are left out")
    _say(f"Set annotate.captions: {TABLE} in the profile, and run `dvc add {out}`")


def _write(found: list[Path], columns: packed.Columns, folder: Path) -> tuple[int, int]:
    """Write pictures and table; return how many there are, and how many rows have none."""
    several = len({packed.split_of(file) for file in found}) > 1
    empty, taken = 0, set[str]()
    rows = []
    with progress.bar("unpack", total=packed.count(found), unit="rows") as report:
        for number, one in enumerate(packed.pictures(found, columns), start=1):
            report(number, {})
            if one.content is None:
                empty += 1
                continue
            name = f"{one.split}/{one.name}" if several else one.name
            while name.lower() in taken:
                name = f"{Path(name).with_suffix('')}-{number:06}{Path(name).suffix}"
            taken.add(name.lower())
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(one.content)
            row = {"file_name": name, "text": one.caption, "artwork": one.artwork}
            rows.append(json.dumps(row, ensure_ascii=False))
    (folder / TABLE).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return len(rows), empty


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
