"""Judgements of painted pictures: by the annotator of the dataset, and by a second judge."""

from atelier import images
from atelier.annotators.protocol import Annotator
from atelier.config.profile import Profile
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.reporting import Report
from atelier.starter import feature_network
from atelier.starter.feature_network import Network
from tasks.annotation import painted_pictures
from tasks.evaluation import pictures
from tasks.run import paths


def second(profile: Profile) -> Network | None:
    """Return the independent judge, which knows the starter's drawings and nothing else."""
    if profile.evaluate.second_judge is None:
        return None
    return feature_network.read(paths.FEATURE_NETWORK)


def judgements(
    annotator: Annotator,
    also: Network | None,
    candidate: str,
    criteria: Tree,
    report: Report,
) -> list[Judgement]:
    """Return what both judges say of a candidate's pictures, by what their files hold.

    Raises:
        AnnotationError: A picture got no answer.
    """
    said = painted_pictures.judge(annotator, pictures.files(candidate), report)
    return said if also is None else [*said, *_second_opinion(also, candidate, criteria)]


def _second_opinion(judge: Network, candidate: str, tree: Tree) -> list[Judgement]:
    known = tree.leaves()
    answers_of = zip(
        pictures.files(candidate), judge.judge(pictures.painted(candidate)), strict=True
    )
    return [
        Judgement(
            image=images.sha256(file),
            criterion=path,
            pole=pole,
            annotator=feature_network.NAME,
            confidence=confidence,
        )
        for file, answers in answers_of
        for path, pole, confidence in answers
        if path in known
    ]
