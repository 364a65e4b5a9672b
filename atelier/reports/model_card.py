"""The model card of a trained LoRA: base, data, settings, results, limits.

It is made from the same data as the evaluation page, so both show the same numbers.
"""

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from atelier.certificates import certificate as certificates
from atelier.config.model import ModelParams, public_name
from atelier.metrics.statistics import Interval
from atelier.reports.evaluation_data import Page, Painter

# Of bases on the hub, as their publishers name them; a LoRA on a base inherits its terms.
_LICENCES = {
    "black-forest-labs/FLUX.1-dev": "FLUX.1 [dev] Non-Commercial License",
    "black-forest-labs/FLUX.1-schnell": "Apache-2.0",
    "stabilityai/stable-diffusion-xl-base-1.0": "CreativeML Open RAIL++-M",
    "stabilityai/stable-diffusion-3.5-medium": "Stability AI Community License",
    "stabilityai/stable-diffusion-3.5-large": "Stability AI Community License",
}


@dataclass(frozen=True)
class Subject:
    """The subject of the card, in addition to the data of the report.

    Attributes:
        name: The painter's.
        registered: Name of its model in the registry.
        folder: Where its weights lie, from the root of the repository.
        file: The file's name: a LoRA's, or that of full weights.
        base: The model that it is put on.
        needs_atelier: Whether parts of the base are of this library's own classes, so that
            diffusers alone cannot load it.
        settings: What it was trained with.
        sampling: How its pictures were sampled, in words.
    """

    name: str
    registered: str
    folder: str
    file: str
    base: ModelParams
    needs_atelier: bool
    settings: Mapping[str, Any]
    sampling: str


def render(page: Page, subject: Subject) -> str:
    """Return the card as Markdown with the hub's header; captions cannot break its tables."""
    source = importlib.resources.files("atelier.reports") / "model_card.md.j2"
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701  Markdown, no HTML; `cell` escapes what tables hold
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    painter, base = page.painters[subject.name], page.painters[page.reference]
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        page=page,
        subject=subject,
        painter=painter,
        base=base,
        base_name=public_name(subject.base),
        published=_published(subject.base),
        licence=licence(subject.base),
        rows=_rows(page, painter, base),
        unavailable=[entry for entry in page.entries.values() if entry.unavailable],
        settings=_flat(subject.settings),
        marks=certificates.marks(page.certificate, list(page.tree.leaves())),
    )


def licence(base: ModelParams) -> str:
    """Return the licence of a base, or where to look for it.

    A line ``Licence: …`` in the README.md of a base's folder says it; of bases on the hub we
    know what their publishers say.
    """
    readme = Path(base.source) / "README.md"
    said = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    found = re.search(r"^licen[cs]e: *(\S.*?) *$", said, re.MULTILINE | re.IGNORECASE)
    if found:
        return found[1]
    return _LICENCES.get(
        base.published or base.source,
        "not known here; look at what came with the base, whose terms a LoRA shares",
    )


def _published(base: ModelParams) -> str | None:
    """The hub id of a base, where it has one."""
    return base.published or (None if Path(base.source).is_dir() else public_name(base))


def cell(value: object) -> str:
    """Return text that stays inside a cell of a Markdown table and is no markup there."""
    text = " ".join(str(value).split())
    for sign in ("\\", "|", "<", ">", "`", "*", "_", "[", "]"):
        text = text.replace(sign, f"\\{sign}")
    return text


def _rows(page: Page, painter: Painter, base: Painter) -> list[tuple[str, str, str]]:
    """Metric, this painter's number, the base's: those of the report."""
    ours, theirs = painter.result, base.result
    rows = [
        (
            f"#A_neg by {page.annotator}, lower is better",
            _ends(ours.attributes.negatives),
            _ends(theirs.attributes.negatives),
        ),
        (
            f"A_pos by {page.annotator}, higher is better",
            _ends(ours.attributes.positives),
            _ends(theirs.attributes.positives),
        ),
    ]
    if ours.difference is not None:
        rows.append(("#A_neg less the base's, paired", _ends(ours.difference), "–"))
    rows += _corrected(page, painter, base)
    if ours.second is not None and theirs.second is not None:
        rows.append(
            (f"#A_neg by {page.second}, independent", _ends(ours.second), _ends(theirs.second))
        )
    if ours.fid is not None and theirs.fid is not None:
        beside = f"{ours.fid.painted} against {ours.fid.real} pictures, {ours.fid.extractor}"
        rows.append((f"FID, {beside}", f"{ours.fid.fid:.2f}", f"{theirs.fid.fid:.2f}"))
        rows.append(
            ("KID × 1000", f"{1000 * ours.fid.kid:.1f}", f"{1000 * theirs.fid.kid:.1f}")
        )
    if ours.diversity is not None and theirs.diversity is not None:
        rows.append(("Vendi", f"{ours.diversity:.2f}", f"{theirs.diversity:.2f}"))
    if ours.nearest is not None and theirs.nearest is not None:
        rows.append(
            (
                "Near copies of training paintings; new pictures have "
                f"{_ends(ours.nearest.expected, 100, '%')}",
                _ends(ours.nearest.share, 100, "%"),
                _ends(theirs.nearest.share, 100, "%"),
            )
        )
    for name, score in ours.scores.items():
        about = page.entries[name].about
        other = theirs.scores[name].mean
        digits = about.digits
        rows.append(
            (about.label, _ends(score.mean, digits=digits), _ends(other, digits=digits))
        )
    return rows


def _corrected(page: Page, painter: Painter, base: Painter) -> list[tuple[str, str, str]]:
    """#A_neg corrected by the annotator's certificate, where there is one."""
    names = {id(one): name for name, one in page.painters.items()}
    mine, theirs = (page.corrected.get(names[id(one)]) for one in (painter, base))
    if mine is None or theirs is None or mine.negatives is None or theirs.negatives is None:
        return []
    of = f"{len(mine.criteria)} of {len(page.tree.leaves())} criteria"
    what = f"#A_neg corrected for the judge's errors, {of}"
    return [(what, _ends(mine.negatives), _ends(theirs.negatives))]


def _ends(value: Interval, times: float = 1, unit: str = "", digits: int = 2) -> str:
    shown = [f"{times * end:.{digits}f}" for end in (value.estimate, value.low, value.high)]
    return f"{shown[0]}{unit} [{shown[1]}, {shown[2]}]"


def _flat(values: Mapping[str, Any], above: str = "") -> Sequence[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{above}{name}.")
        else:
            rows.append((f"{above}{name}", value))
    return rows
