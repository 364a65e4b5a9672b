"""``cpo.pairs:`` of a profile: where pairs of pictures come from."""

from typing import Annotated, Literal

from pydantic import Field

from atelier.config.fields import Count, Inside, Params, Real


class AnnotationPairs(Params):
    """Pairs of pictures from the judgements: fewer negatives win."""

    source: Literal["annotations"]
    caption_similarity: Annotated[Real, Field(gt=0, le=1)]  # 1: equal captions only
    neighbours: Count  # partners that each picture meets
    ties: Literal["dropped", "halved"]  # halved: both orders, at half weight each


class TablePairs(Params):
    """Pairs of pictures from a table; docs/pairs.md."""

    source: Literal["table"]
    table: Inside  # CSV inside data/, with the columns file_win, file_lose, caption


PairParams = Annotated[AnnotationPairs | TablePairs, Field(discriminator="source")]
