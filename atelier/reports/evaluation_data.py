"""Data of the evaluation page: models, their results, and provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atelier.certificates.certificate import Certificate
from atelier.certificates.correction import Corrected
from atelier.criteria.tree import Tree
from atelier.images import Pixels
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Painted, Result
from atelier.reports.charts import Points


@dataclass(frozen=True)
class Painter:
    """One painter of the comparison.

    Attributes:
        label: How tables call it.
        about: What it is and how it was prompted, in a sentence.
        passes: Calls of the network for a step of its sampler, its price for a picture.
        painted: Its pictures and what was found on them.
        result: What was measured.
        curve: Training curves by name, points (step, value); empty for the base.
    """

    label: str
    about: str
    passes: int
    painted: Painted
    result: Result
    curve: Mapping[str, Points]

    @property
    def drift(self) -> float | None:
        """Distance from the base at the end of training, ``sqrt(mse(e, e0))``."""
        points = self.curve.get("drift")
        return points[-1][1] if points else None


@dataclass(frozen=True)
class Part:
    """One part of the split."""

    name: str
    images: int
    positives: float  # mean A_pos an image
    negatives: float  # mean A_neg an image


@dataclass(frozen=True)
class Coverage:
    """How often one criterion was judged in the training part, as shares of its images."""

    positive: float
    negative: float

    @property
    def silent(self) -> float:
        """Share on which the annotator abstained."""
        return max(0.0, 1 - self.positive - self.negative)


@dataclass(frozen=True)
class DataSheet:
    """What the painters learned from and were examined on."""

    parts: Sequence[Part]
    coverage: Mapping[str, Coverage]
    quarantined: Sequence[tuple[str, str]]  # file, reason


@dataclass(frozen=True)
class Pair:
    """A generated picture and the training painting closest to it.

    Attributes:
        index: Which prompt it was painted for.
        painting: The training painting as the painter saw it.
        title: Caption of that painting.
        distance: Between both, as a multiple of the limit below which a picture is near.
    """

    index: int
    painting: Pixels
    title: str
    distance: float


@dataclass(frozen=True)
class Sweep:
    """Painters that differ by one number alone, as ω or how many paintings they learned from.

    Attributes:
        title: What differs, for a heading.
        across: What the number is, for the axis.
        points: The number and the painter's name, in the order of the numbers.
    """

    title: str
    across: str
    points: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Page:
    """Everything that the report shows.

    Attributes:
        painters: By name, in the order of rows.
        reference: Name of the untouched base.
        featured: Name of the painter that leads.
        prompts: Captions that all of them painted.
        grid_prompts: How many of those are in the grid.
        tree: The criteria.
        annotator: Who judged; also who annotated what θ1 learned from.
        second: Name of the independent judge; None where there is none.
        entries: The metrics of the profile, measured or not.
        extractor: Of the features that FID and others compare; None if it is unavailable.
        unseen: Vendi score of as many test paintings as there are prompts, and how many those
            are; None if it was not measured.
        pairs: By painter, its pictures that come closest to a training painting.
        sweeps: What happens as one number grows.
        studies: What people preferred, a section of HTML for each study, escaped.
        data: The data sheet.
        provenance: What made this page: (name, value).
        params: The profile as text.
        certificate: Of the annotator; None if it has none.
        corrected: #A_neg corrected by the certificate, by painter.
    """

    painters: Mapping[str, Painter]
    reference: str
    featured: str
    prompts: Sequence[str]
    grid_prompts: int
    tree: Tree
    annotator: str
    second: str | None
    entries: Mapping[str, Entry]
    extractor: str | None
    unseen: tuple[float, int] | None
    pairs: Mapping[str, Sequence[Pair]]
    sweeps: Sequence[Sweep]
    studies: Sequence[str]
    data: DataSheet
    provenance: Sequence[tuple[str, str]]
    params: str
    certificate: Certificate | None = None
    corrected: Mapping[str, Corrected] = field(default_factory=dict)

    @property
    def captions(self) -> int:
        """How many different captions the prompts have."""
        return len(set(self.prompts))
