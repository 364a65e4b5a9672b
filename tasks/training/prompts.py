"""Training prompts within the encoders' limit; dropped attributes are counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from atelier.criteria import captions
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.training.randomness import generator

if TYPE_CHECKING:
    from atelier.objectives.objective import Winner


class Reader(Protocol):
    """What prompts need to know of a painter: how much its encoders read."""

    @property
    def token_budget(self) -> int:
        """Return the prompt tokens that the narrowest encoder reads."""

    def count_tokens(self, prompt: str) -> int:
        """Return how much of ``token_budget`` the prompt needs."""


@dataclass
class Prompts:
    """Writes prompts for one painter and keeps the tally of what they had to leave out."""

    painter: Reader
    tree: Tree
    seed: int
    phrases: int = 0  # asked for
    dropped: int = 0  # left out because the encoders read no further
    cut_captions: int = 0
    _lengths: dict[str, int] = field(default_factory=dict)

    def write(self, record: Record, attributes: Sequence[str], variant: int = 0) -> str:
        """Return the caption with as many of the phrases as fit."""
        fitted = captions.fit(
            record.caption,
            attributes,
            self.painter.token_budget,
            self._count,
            seed=_integer(self.seed, record.image, variant),
        )
        self.phrases += len(attributes)
        self.dropped += len(fitted.dropped)
        self.cut_captions += fitted.cut
        return fitted.prompt

    def labelled(self, record: Record, variants: int, dropout: float) -> list[str]:
        """Return ``y ∪ A_pos ∪ A_neg`` in variants, each phrase kept with 1 - dropout."""
        every = captions.labelled(record.positive, record.negative, self.tree)
        prompts = []
        for variant in range(variants):
            source = generator(self.seed, variant, f"dropout {record.image}")
            kept = [p for p in every if _uniform(source) >= dropout]
            prompts.append(self.write(record, kept, variant))
        return prompts

    def good(self, record: Record) -> str:
        """Return the winner's prompt ``y ∪ A_pos``."""
        return self.write(record, captions.winner(record.positive, self.tree))

    def bad(self, record: Record) -> str:
        """Return the loser's prompt ``y ∪ A_neg``."""
        return self.write(record, captions.loser(record.negative, self.tree))

    def flipped(self, record: Record) -> str:
        """Return ``y`` with every active pair at its good pole."""
        phrases = captions.flipped_winner(record.positive, record.negative, self.tree)
        return self.write(record, phrases)

    def contrasts(
        self,
        record: Record,
        winner: "Winner",
        *,
        draws: int | None,
        roots: Sequence[str] | None,
        caption_wins: bool = False,
    ) -> list[tuple[str, str]]:
        """Return pairs of prompts, winner's and loser's, of which each step takes one.

        Args:
            record: The image.
            winner: Whether the winner names labelled good poles or all.
            draws: How often attributes are drawn, each kept as often as the annotator was
                sure of it; None keeps all of them.
            roots: Dimensions that have a contrast of their own each: the loser is bad in that
                one alone, and equals the winner in dimensions without a bad attribute. None
                is one contrast of everything.
            caption_wins: Whether a caption alone may win, where no good pole is labelled.
        """
        found = []
        for draw in range(draws or 1):
            kept = record if draws is None else self._sure(record, draw)
            active = kept.positive if winner == "labelled" else [*kept.positive, *kept.negative]
            good = self.write(kept, captions.winner(active, self.tree), draw)
            for root in roots or (None,):
                bad = [path for path in kept.negative if root in (None, _root(path))]
                same = [path for path in active if root is not None and _root(path) != root]
                phrases = captions.labelled(same, bad, self.tree)
                whole = kept.positive or winner == "flipped" or caption_wins
                one_sided = root is not None and not (bad and whole)
                found.append((good, good if one_sided else self.write(kept, phrases, draw)))
        return found

    def _sure(self, record: Record, draw: int) -> Record:
        """The record with each active criterion kept as often as the annotator was sure."""
        source = generator(self.seed, draw, f"confidence {record.image}")
        poles = {"positive": record.positive, "negative": record.negative}
        kept = {
            pole: [path for path in every if _uniform(source) < record.confidence_in(path)]
            for pole, every in poles.items()
        }
        return record.model_copy(update=kept)

    def tally(self) -> dict[str, float]:
        """Return the shares that did not fit."""
        return {
            "dropped_attributes": self.dropped / max(self.phrases, 1),
            "cut_captions": self.cut_captions,
        }

    def _count(self, text: str) -> int:
        if text not in self._lengths:
            self._lengths[text] = self.painter.count_tokens(text)
        return self._lengths[text]


def _root(path: str) -> str:
    return path.partition("/")[0]


def _integer(seed: int, image: str, variant: int) -> int:
    return generator(seed, variant, f"phrases {image}").initial_seed()


def _uniform(source: torch.Generator) -> float:
    return float(torch.rand((), generator=source))
