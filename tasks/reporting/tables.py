"""Tables of a comparison: metrics for DVC and MLflow, the metric suite, rows for plots."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from atelier.certificates.certificate import Certificate
from atelier.certificates.correction import Corrected
from atelier.metrics import fid, kid, memorization, vendi
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Result, Score
from atelier.metrics.statistics import Interval

_BY_FEATURES = {about.name for about in (fid.ABOUT, kid.ABOUT, vendi.ABOUT, memorization.ABOUT)}
Rows = list[dict[str, str | float]]


def is_by_picture(metric: str) -> bool:
    """Say whether a metric scores one picture at a time, not a set by its features."""
    return metric not in _BY_FEATURES


def headline(result: Result, corrected: Corrected | None = None) -> dict[str, float]:
    """Return the numbers of one candidate that a table of all candidates shows.

    Args:
        result: What was measured.
        corrected: #A_neg corrected by the annotator's certificate; None if it has none.
    """
    found = result.attributes
    row = {
        "negatives": found.negatives.estimate,
        "negatives_low": found.negatives.low,
        "negatives_high": found.negatives.high,
        "captions": result.captions,
        "positives": found.positives.estimate,
    }
    if corrected is not None and corrected.negatives is not None:
        row |= {
            "negatives_corrected": corrected.negatives.estimate,
            "negatives_corrected_low": corrected.negatives.low,
            "negatives_corrected_high": corrected.negatives.high,
            "criteria_corrected": len(corrected.criteria),
        }
    if result.second is not None:
        row["negatives_independent"] = result.second.estimate
    if result.fid is not None:
        row |= {"fid": result.fid.fid, "kid": result.fid.kid}
    if result.fid_clean is not None:
        row["fid_clean"] = result.fid_clean.fid
    if result.diversity is not None:
        row["vendi"] = result.diversity
    if result.nearest is not None:
        row["memorisation"] = result.nearest.share.estimate
        row["memorisation_expected"] = result.nearest.expected.estimate
    for name, score in result.scores.items():
        row |= {name: score.mean.estimate, f"{name}_low": score.mean.low}
        row[f"{name}_high"] = score.mean.high
    return row | {"clipped": result.clipped}


def suite(entries: Mapping[str, Entry], extractor: str | None) -> dict[str, Any]:
    """Return what stands beside the scores: weights, preprocessing, scale; or why none is."""
    return {
        name: {
            "label": entry.about.label,
            "available": entry.unavailable is None,
            "unavailable": entry.unavailable,
            "says": entry.about.says,
            "better": entry.about.better,
            "scale": entry.about.scale,
            "preprocessing": entry.about.preprocessing,
            "features": None if is_by_picture(name) else extractor,
            "weights": dict(entry.files),
            "precision": entry.dtype,
            "version": entry.about.version,
        }
        for name, entry in entries.items()
    }


def certified(certificate: Certificate | None) -> dict[str, Any]:
    """Return what the registry says of the annotator's certificate."""
    if certificate is None:
        return {"version": None, "failing": {}}
    return {
        "version": certificate.version,
        "annotator": certificate.annotator,
        "failing": certificate.failing,
    }


def rows(results: Mapping[str, Result], captions: Sequence[str]) -> dict[str, Rows]:
    """Return the tables that ``dvc plots`` draws and spreadsheets open, by file name."""
    tables: dict[str, Rows] = {
        "prompts": [
            {"prompt": place, "caption": caption} for place, caption in enumerate(captions)
        ]
    }

    def add(table: str, painter: str, **values: str | float) -> None:
        tables.setdefault(table, []).append({"painter": painter, **values})

    for name, result in results.items():
        found = result.attributes
        add("negatives", name, **_ends(found.negatives))
        if result.difference is not None:
            add("change", name, **_ends(result.difference))
        if result.second is not None:
            add("independent", name, **_ends(result.second))
        for root, value in found.negatives_by_root.items():
            add("roots", name, root=root, **_ends(value))
        for root, value in found.positives_by_root.items():
            add("positives", name, root=root, **_ends(value, "positives"))
        for metric, score in result.scores.items():
            ends = _ends(score.mean, "score")
            add("scores", name, metric=metric, **ends, **_against_the_base(score))
            for place, number in enumerate(score.values):
                add("pictures", name, metric=metric, prompt=place, score=number)
        for path, share in found.negative_shares.items():
            positive = found.positive_shares[path].estimate
            add("criteria", name, criterion=path, **_ends(share), positive=positive)
        for against, distance in (("test", result.fid), ("clean", result.fid_clean)):
            if distance is not None:
                add(
                    "distances",
                    name,
                    against=against,
                    fid=distance.fid,
                    kid=distance.kid,
                    negatives=found.negatives.estimate,
                    painted=distance.painted,
                    real=distance.real,
                    extractor=distance.extractor,
                )
    return tables


def _ends(value: Interval, called: str = "negatives") -> dict[str, float]:
    return {called: value.estimate, "low": value.low, "high": value.high}


def _against_the_base(score: Score) -> dict[str, float | str]:
    """The paired difference and the win rate, with their ends; empty for the base itself."""
    row: dict[str, float | str] = {}
    for called, value in (("difference", score.difference), ("wins", score.wins)):
        ends = ("", "", "") if value is None else (value.estimate, value.low, value.high)
        row |= dict(zip((called, f"{called}_low", f"{called}_high"), ends, strict=True))
    return row


def as_csv(rows: Rows) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
