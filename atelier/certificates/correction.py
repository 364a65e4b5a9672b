"""Correction of #A_neg for what its judge misses and for what it alleges: Rogan and Gladen.

A judge that finds a fault where it is with probability Se (sensitivity), and finds none where
none is with Sp (specificity), finds it in a share ``P = Se p + (1 - Sp) (1 - p)`` of the
pictures of which a share p has it. So ``p = (P + Sp - 1) / (Se + Sp - 1)``. The corrected
#A_neg is the sum of p over the criteria. It is shown beside the count, never instead of it: it
holds as far as the judge errs on these pictures as on those of its certificate.

The interval: with ``J = Se + Sp - 1``, the count's own variance between captions, that of
``Σ_c x_c / J_c``, and for each criterion ``((1 - p)² v(Sp) + p² v(Se)) / J²``. As in Lang and
Reiczigel, one success and one failure are added to Se and Sp, so that a certificate without an
error is not taken for a judge without errors.

References:
    Rogan & Gladen, Estimating prevalence from the results of a screening test, American Journal
    of Epidemiology 107 (1978) 71-76. Lang & Reiczigel, Confidence limits for prevalence of
    disease adjusted for estimated sensitivity and specificity, Preventive Veterinary Medicine
    113 (2014) 13-22.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atelier.certificates.certificate import Certificate, Range
from atelier.metrics import statistics
from atelier.metrics.negatives import Verdicts
from atelier.metrics.statistics import Interval

LEAST = 0.1  # of Se + Sp - 1, at its lower end: with less, nothing can be corrected


@dataclass(frozen=True)
class Corrected:
    """A count of negatives, corrected as far as it can be.

    Attributes:
        negatives: Corrected, of the criteria that can be; None if none can.
        raw: The plain count of the same criteria.
        criteria: Those criteria, in the order of the tree.
        left_out: Criteria that the judge names negative here and that cannot be corrected.
        shares: Corrected share of pictures with the bad pole, by criterion.
    """

    negatives: Interval | None
    raw: Interval | None
    criteria: Sequence[str]
    left_out: Sequence[str]
    shares: Mapping[str, Interval]


@dataclass(frozen=True)
class _Rate:
    """Sensitivity or specificity: estimate and variance."""

    value: float
    variance: float


def correct(
    found: Sequence[Verdicts], captions: Sequence[str], certificate: Certificate
) -> Corrected:
    """Correct what a judge found on pictures by its certificate's first reference.

    Args:
        found: What it found on each picture, at least one.
        captions: Of each picture; the units of the count's own variance.
        certificate: Of the same judge.
    """
    rates = _rates(certificate)
    named = {path for said in found for path, pole in said.items() if pole == "negative"}
    shares = {}
    for path in rates:
        shares[path] = _corrected([path], found, captions, rates, most=1)
    if not rates:
        return Corrected(None, None, [], sorted(named), {})
    paths = list(rates)
    raw = [sum(said.get(path) == "negative" for path in paths) for said in found]
    return Corrected(
        negatives=_corrected(paths, found, captions, rates, most=len(paths)),
        raw=statistics.count(raw, captions, most=len(paths)),
        criteria=paths,
        left_out=sorted(named - rates.keys()),
        shares=shares,
    )


def _rates(certificate: Certificate) -> dict[str, tuple[_Rate, _Rate]]:
    """Sensitivity and specificity of each criterion that they can correct."""
    reference = next(iter(certificate.references), None)
    if reference is None:
        return {}
    rates = {}
    for path, standing in certificate.standings.items():
        against = standing.against[reference]
        if against.sensitivity is None or against.specificity is None:
            continue
        if against.sensitivity.low + against.specificity.low - 1 < LEAST:
            continue
        rates[path] = (_rate(against.sensitivity), _rate(against.specificity))
    return rates


def _rate(share: Range) -> _Rate:
    hits, count = share.estimate * share.count + 1, share.count + 2
    value = hits / count
    return _Rate(value, value * (1 - value) / count)


def _corrected(
    paths: Sequence[str],
    found: Sequence[Verdicts],
    captions: Sequence[str],
    rates: Mapping[str, tuple[_Rate, _Rate]],
    *,
    most: int,
) -> Interval:
    """Corrected count of ``paths`` an image, inside [0, most]."""
    weighed = np.zeros(len(found))
    offset = variance = 0.0
    for path in paths:
        sensitivity, specificity = rates[path]
        power = sensitivity.value + specificity.value - 1
        hits = np.array([said.get(path) == "negative" for said in found], float)
        weighed += hits / power
        offset -= (1 - specificity.value) / power
        share = min(max((hits.mean() + specificity.value - 1) / power, 0.0), 1.0)
        variance += (
            (1 - share) ** 2 * specificity.variance + share**2 * sensitivity.variance
        ) / power**2
    center = float(weighed.mean()) + offset
    own = statistics.mean(weighed, captions)
    margin = own.high - own.estimate
    if math.isfinite(margin):
        # Counts that never differ would have no margin; the score interval gives them one.
        plain = [sum(said.get(path) == "negative" for path in paths) for said in found]
        score = statistics.count(plain, captions, most=most)
        powers = [rates[p][0].value + rates[p][1].value - 1 for p in paths]
        margin = max(margin, (score.high - score.low) / 2 / max(powers))
    half = math.sqrt(margin**2 + statistics.quantile_squared(10**6) * variance)
    low, high = (min(max(end, 0.0), float(most)) for end in (center - half, center + half))
    return Interval(min(max(center, 0.0), float(most)), low, high, len(found))
