"""Checks of ``evaluate``'s inputs, made before ``generate`` paints for hours."""

from atelier.config.profile import Profile
from atelier.criteria.tree import Tree
from tasks.annotation import painted_pictures
from tasks.evaluation import scoring


def run(profile: Profile, tree: Tree) -> None:
    """Refuse an annotator that cannot judge new pictures; name metrics that are unavailable.

    Raises:
        ParamsError: The annotator cannot, or a device that was asked for is not there.
    """
    painted_pictures.annotator(profile, tree)
    scoring.survey(profile)
