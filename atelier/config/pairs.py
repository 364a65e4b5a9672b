"""``cpo.pairs:`` of a profile: where pairs of pictures come from."""

from typing import Annotated, Literal

from pydantic import Field

from atelier.config.fields import Count, Inside, Params, Real


class AnnotationPairs(Params):
    """Pairs of pictures from the judgements: fewer negatives win."""

    source: Literal["annotations"]
    """Pairs come from the judgements: the picture with fewer negative attributes wins."""
    caption_similarity: Annotated[Real, Field(gt=0, le=1)]
    """Least similarity of two captions whose pictures are paired; 1: equal captions only.
    [share]"""
    neighbours: Count
    """Partners that each picture gets. [pictures]"""
    ties: Literal["dropped", "halved"]
    """Pairs with equal counts are dropped, or used in both orders at half weight."""


class TablePairs(Params):
    """Pairs of pictures from a table; docs/pairs.md."""

    source: Literal["table"]
    """Pairs come from a table; docs/pairs.md."""
    table: Inside
    """CSV inside data/ with the columns file_win, file_lose and caption."""


PairParams = Annotated[AnnotationPairs | TablePairs, Field(discriminator="source")]
