"""The choice of an annotator by the settings of ``annotate:``; the only place that makes it."""

from collections.abc import Sequence
from pathlib import Path

from atelier.annotators.inspection import Limits
from atelier.annotators.measured import Measured
from atelier.annotators.protocol import Annotator
from atelier.annotators.recorded import Recorded, WithRecorded
from atelier.annotators.vlm.annotator import VLM
from atelier.config.annotation import AnnotateParams
from atelier.criteria import aggregation
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError


def annotator(
    params: AnnotateParams,
    tree: Tree,
    limits: Limits,
    *,
    responses: Path,
    recordings: Sequence[Path],
) -> Annotator:
    """Return the annotator in force, with the judgements that people and others recorded.

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
    own = of_new_pictures(params, tree, limits, responses=responses)
    aggregation.refuse_idle(params.adjudication, {own.name} | recorded.names)
    return WithRecorded(own, recorded) if recordings else own


def of_new_pictures(
    params: AnnotateParams, tree: Tree, limits: Limits, *, responses: Path
) -> Annotator:
    """Return the annotator in force without recordings: it judges pictures never seen before.

    Raises:
        ParamsError: The annotator only replays judgements.
    """
    match params.annotator:
        case "measured":
            return Measured(tree, limits)
        case "vlm":
            assert params.vlm is not None  # its settings see to it
            return VLM(tree, params.vlm, limits, responses)
        case "recorded":
            raise ParamsError(
                "annotate.annotator 'recorded' replays judgements and has none of pictures "
                "that were not painted yet; evaluate needs one that sees pixels. Let annotator "
                "be 'measured' or 'vlm', leave the files under recorded, and say by "
                "annotate.adjudication whose judgements are learned from"
            )
