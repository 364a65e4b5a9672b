"""``atelier criteria calibrate|sheets``: measures on a folder of pictures."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from atelier import atomic, images, parallel
from atelier.annotators import calibration
from atelier.annotators.calibration import Reader, Reading, Standing
from atelier.criteria import dataset
from atelier.criteria.annotations import Quarantined
from atelier.criteria.tree import Criterion, Measure, Tree, parse
from atelier.errors import CriteriaError
from tasks.commands.criteria import in_force
from tasks.run import progress
from tasks.run.console import console, say

LARGEST_PIXELS = 100_000_000
ALIKE = 0.7  # rank correlation from which two measures are told
_SHOWN = 12  # pictures on either side of a sheet
_COLUMNS = 6
_SIDE = 160  # pixels of a picture on a sheet
MEASURE_LINE = re.compile(
    r"(measure: \{name: (?P<name>\w+), )positive_at: [^,]+, negative_at: [^}]+\}(?P<rest>.*)"
)
_FIXED = "# fixed"


def calibrate(
    folder: Path,
    file: Path | None,
    captions: str | None,
    pixels: int,
    share: float,
    write: bool,
) -> None:
    """Propose thresholds from the pictures of ``folder``, and write them if asked to.

    Raises:
        AtelierError: The criteria do not fit, or there is no picture that can be used.
    """
    file = file or in_force()
    tree = parse(file)
    readings = _read(folder, tree, captions, pixels)
    standings = calibration.standings(readings, tree)
    console().print(_proposals(standings, share))
    if write:
        text = file.read_text(encoding="utf-8")
        atomic.write(file, rewritten(text, standings, share))
        parse(file)
        say(f"{file} has the proposed thresholds")


def sheets(
    folder: Path, file: Path | None, captions: str | None, pixels: int, out: Path
) -> None:
    """Write a contact sheet for each measured pair and the table of all into ``out``.

    Raises:
        AtelierError: The criteria do not fit, or there is no picture that can be used.
    """
    tree = parse(file or in_force())
    readings = _read(folder, tree, captions, pixels)
    standings = calibration.standings(readings, tree)
    leaves = tree.leaves()
    with progress.bar("sheets", total=len(standings), unit="sheets") as report:
        for done, standing in enumerate(standings, start=1):
            picture = np.asarray(sheet(folder, standing, leaves[standing.path]))
            atomic.write(out / f"{standing.path.replace('/', '.')}.png", images.png(picture))
            report(done, {})
    text = "\n".join([*_coverage(standings), "", *_likenesses(readings, standings), ""])
    atomic.write(out / "measures.md", text)
    say(f"{out} has {len(standings)} sheets and measures.md")


def rewritten(text: str, standings: Sequence[Standing], share: float) -> str:
    """Return the criteria file's text with the proposed thresholds.

    A line that says ``# fixed`` behind its measure keeps them; so does a pair without a
    proposal.
    """
    pending = list(standings)

    def replaced(found: re.Match[str]) -> str:
        standing = pending.pop(0)
        proposal = standing.proposal(share)
        if _FIXED in found["rest"] or proposal is None:
            return found[0]
        return f"{found[1]}{_thresholds(proposal)}}}{found['rest']}"

    if len(MEASURE_LINE.findall(text)) != len(standings):
        raise CriteriaError(
            "the thresholds cannot be written: each measure should stand on a line of its own "
            "as `measure: {name: …, positive_at: …, negative_at: …}`"
        )
    return MEASURE_LINE.sub(replaced, text)


def sheet(folder: Path, standing: Standing, leaf: Criterion) -> Image.Image:
    """Return the pictures that speak most for each pole, with their values."""
    ranked = standing.ranked()
    halves = (("+", leaf.positive, ranked[:_SHOWN]), ("-", leaf.negative, ranked[-_SHOWN:]))
    rows = _SHOWN // _COLUMNS
    height = 24 + 2 * (22 + rows * (_SIDE + 16))
    page = Image.new("RGB", (_COLUMNS * (_SIDE + 4) + 4, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    title = f"{standing.path}   ({_legend(standing.measure)})"
    draw.text((6, 4), title, "black", font=ImageFont.load_default(12))
    top = 24
    for sign, phrase, chosen in halves:
        draw.text((6, top + 2), f"{sign} {phrase}", "black", font=font)
        for index, (file, value) in enumerate(chosen):
            row, column = divmod(index, _COLUMNS)
            place = (4 + column * (_SIDE + 4), top + 22 + row * (_SIDE + 16))
            picture = images.read(folder / file, LARGEST_PIXELS)
            page.paste(Image.fromarray(images.square(picture, _SIDE)), place)
            draw.text((place[0] + 2, place[1] + _SIDE), f"{value:.3g}", "black", font=font)
        top += 22 + rows * (_SIDE + 16)
    return page


def _read(folder: Path, tree: Tree, captions: str | None, pixels: int) -> list[Reading]:
    found = dataset.find(folder, captions, captionless=True)
    reader = Reader(folder, tree, pixels, LARGEST_PIXELS)
    readings, quarantined = [], list(found.quarantined)
    with (
        progress.bar("measure", total=len(found.entries), unit="images") as report,
        parallel.results(reader, found.entries, parallel.cores()) as results,
    ):
        for done, result in enumerate(results, start=1):
            if isinstance(result, Quarantined):
                quarantined.append(result)
            else:
                readings.append(result)
            report(done, {"set aside": len(quarantined)})
    if not readings:
        raise dataset.nothing_usable(folder, quarantined)
    return readings


def _proposals(standings: Sequence[Standing], share: float) -> Table:
    table = Table(
        "pair", "measure", "pictures", "now", "proposed", title="positive at / negative at"
    )
    for standing in standings:
        proposal = standing.proposal(share)
        table.add_row(
            standing.path.rsplit("/", 1)[-1],
            standing.measure.name,
            str(len(standing.values)),
            _both(standing.measure),
            "too few" if proposal is None else _both(proposal),
        )
    return table


def _both(measure: Measure) -> str:
    return f"{measure.positive_at:g} / {measure.negative_at:g}"


def _thresholds(measure: Measure) -> str:
    return f"positive_at: {measure.positive_at:g}, negative_at: {measure.negative_at:g}"


def _legend(measure: Measure) -> str:
    return f"{measure.name}; {_thresholds(measure)}"


def _coverage(standings: Sequence[Standing]) -> list[str]:
    """Coverage: the share of pictures with a number; base rates: the shares of each pole."""
    lines = [
        "| pair | measure | coverage | positive | negative | abstained |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for one in standings:
        shares = (
            len(one.values) / one.pictures,
            *map(one.share, ("positive", "negative", None)),
        )
        cells = " | ".join(f"{share:.2f}" for share in shares)
        lines.append(f"| `{one.path.rsplit('/', 1)[-1]}` | {one.measure.name} | {cells} |")
    return lines


def _likenesses(readings: Sequence[Reading], standings: Sequence[Standing]) -> list[str]:
    by_path = {one.path: one.measure.name for one in standings}
    alike = calibration.redundancies(readings, list(by_path), ALIKE)
    return ["| measure | measure | rank correlation |", "|---|---|--:|"] + [
        f"| {by_path[first]} | {by_path[second]} | {rho:.2f} |" for first, second, rho in alike
    ]
