"""The choice of an annotator by the settings of ``annotate:``; the only place that makes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from atelier.annotators.inspection import Limits
from atelier.annotators.measured import Measured
from atelier.annotators.protocol import Annotator
from atelier.annotators.recorded import Recorded, WithRecorded
from atelier.annotators.vlm.annotator import VLM
from atelier.config.annotation import AnnotateParams, VLMParams
from atelier.criteria import aggregation
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError


def of_dataset(
    params: AnnotateParams,
    tree: Tree,
    limits: Limits,
    *,
    responses: Path,
    recordings: Sequence[Path],
) -> Annotator:
    """Return the annotator of a dataset, with the judgements that were recorded of it.

    Args:
        params: The settings.
        tree: The criteria.
        limits: Which pictures can be used.
        responses: Folder of the answers of models.
        recordings: The files of ``annotate.recorded``.

    Raises:
        ArtifactError: A recording is absent.
        AnnotationError: A recording does not fit.
        ParamsError: ``annotate.adjudication`` trusts an annotator that does not exist.
    """
    recorded = Recorded.read(recordings, tree, limits)
    if params.annotator == "recorded":
        aggregation.refuse_idle(params.adjudication, recorded.names)
        return recorded
    own = of_new_pictures(params.annotator, params.vlm, tree, limits, responses=responses)
    aggregation.refuse_idle(params.adjudication, {own.name} | recorded.names)
    return WithRecorded(own, recorded) if recordings else own


def of_new_pictures(
    kind: Literal["measured", "recorded", "vlm"],
    vlm: VLMParams | None,
    tree: Tree,
    limits: Limits,
    *,
    responses: Path,
) -> Measured | VLM:
    """Return the annotator of pictures that were never judged before; it also compares two.

    Args:
        kind: ``annotate.annotator``.
        vlm: ``annotate.vlm``.
        tree: The criteria.
        limits: Which pictures can be used.
        responses: Folder of the answers of models.

    Raises:
        ParamsError: The annotator only replays judgements.
    """
    match kind:
        case "measured":
            return Measured(tree, limits)
        case "vlm":
            assert vlm is not None  # the settings see to it
            return VLM(tree, vlm, limits, responses)
        case "recorded":
            raise ParamsError(
                "annotate.annotator 'recorded' replays judgements and has none of pictures "
                "that were not painted yet; evaluate needs one that sees pixels. Let annotator "
                "be 'measured' or 'vlm', leave the files under recorded, and say by "
                "annotate.adjudication whose judgements are learned from"
            )
