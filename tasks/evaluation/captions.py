"""The captions that every candidate paints: which, in which order, and from which noise."""

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from tasks.run import paths, split_parts


def part(profile: Profile) -> Path:
    """Return the file of the part whose captions are painted."""
    return paths.SPLIT / f"{profile.generate.part}.jsonl"


def records(profile: Profile) -> list[Record]:
    """Return the images of that part.

    Raises:
        ArtifactError: The images were not divided yet, or the part is empty.
    """
    return split_parts.read(profile.generate.part, "generate.part")


def painted(test: Sequence[Record], count: int) -> list[Record]:
    """Return ``count`` of them in the order of their hashes: subjects mix, runs agree."""
    return heapq.nsmallest(count, test, key=lambda record: record.image)


def seeds(seed: int, count: int) -> list[int]:
    """Return the seed of each caption's starting noise, a function of (seed, index) alone."""
    return [
        int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        for index in range(count)
    ]
