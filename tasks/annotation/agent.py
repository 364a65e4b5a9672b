"""The agent with its ledger opened: answers are shared by stages and outlive their runs."""

import contextlib
import re
from collections.abc import Iterable, Iterator

from atelier import images
from atelier.annotators.vlm import agent
from atelier.annotators.vlm.agent import Agent, VLMRequest
from atelier.annotators.vlm.response_cache import ResponseCache
from atelier.config.annotation import VLMParams
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from tasks.run import paths


@contextlib.contextmanager
def opened(tree: Tree, params: VLMParams | None, largest_pixels: int) -> Iterator[Agent]:
    """Yield the agent that ``annotate.vlm`` describes.

    Raises:
        ParamsError: Nothing is described.
        AnnotationError: The ledger is in use, or damaged.
    """
    if params is None:
        raise ParamsError("annotate.vlm is null; it should say where the model is served")
    name = re.sub(r"[^\w.-]+", "-", params.model)
    path = paths.ANSWERS / f"{name}.jsonl"
    with ResponseCache(path, agent.criteria_name(tree)) as ledger:
        yield Agent(tree, params, ledger, largest_pixels=largest_pixels)


def sights(entries: Iterable[Entry]) -> list[VLMRequest]:
    """Return the pictures of a corpus as the agent sees them, of the same bytes the first."""
    seen: dict[str, VLMRequest] = {}
    for entry in entries:
        file = paths.DATA / entry.file
        if file.is_file():
            image = images.sha256(file)
            seen.setdefault(image, sight(image, entry))
    return list(seen.values())


def sight(image: str, entry: Entry) -> VLMRequest:
    """Return one picture, with its title if it wants a caption."""
    return VLMRequest(image, paths.DATA / entry.file, None if entry.caption else entry.title)
