"""The annotator of painted pictures: the one of the dataset, without recorded judgements."""

import sys
from collections.abc import Sequence
from pathlib import Path

from atelier.annotators import choice
from atelier.annotators.inspection import Limits
from atelier.annotators.measured import Measured
from atelier.annotators.protocol import Annotator, Picture
from atelier.annotators.vlm.annotator import VLM
from atelier.config.profile import Profile
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError
from atelier.reporting import Report
from tasks.run import paths

# Pictures of our own: none is too small or too large, and they are judged as they are.
_ANY = Limits(smallest_side_pixels=1, largest_pixels=2**31, pixels=None)


def annotator(profile: Profile, tree: Tree) -> Measured | VLM:
    """Return the annotator of pictures that were just painted.

    Raises:
        ParamsError: It only replays judgements.
    """
    return choice.of_new_pictures(
        profile.annotate.annotator,
        profile.annotate.vlm,
        tree,
        _ANY,
        responses=paths.ANSWERS,
    )


def judge(annotator: Annotator, files: Sequence[Path], report: Report) -> list[Judgement]:
    """Return the judgements of painted pictures, picture by picture.

    Raises:
        AnnotationError: A picture got no answer, so that models cannot be compared.
    """
    answers = annotator.judge_many([Picture(file) for file in files], report)
    sys.stdout.writelines(f"{warning}\n" for warning in answers.warnings)
    failed = [one.unanswered for one in answers.each if one.unanswered is not None]
    if failed:
        raise AnnotationError(
            f"{len(failed)} painted pictures got no usable answer, without which models "
            f"cannot be compared; the first: {failed[0]}\nThe same command asks about them "
            "again; all other answers are kept"
        )
    return [said for one in answers.each for said in one.judgements]
