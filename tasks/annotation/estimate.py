"""Estimate of ``annotate``: calls, tokens and cost of the agent before anything is sent."""

import functools
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from atelier import images
from atelier.annotators.vlm.agent import Agent
from atelier.annotators.vlm.annotator import VLM
from atelier.annotators.vlm.cost import Cost
from atelier.annotators.vlm.walk import VLMRequest
from atelier.config.annotation import VLMParams
from atelier.config.profile import Profile
from atelier.criteria import dataset
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import parse
from tasks.annotation import annotator
from tasks.run import paths
from tasks.run.console import console, say

_SHOWN = ("calls", "tokens sent", "tokens answered", "cost")


def run(profile: Profile) -> None:
    """Print calls, tokens and cost of the pictures in ``paths.DATA``; nothing is sent.

    The upper line assumes that every criterion is judged in every picture. The middle one goes
    by the pictures that were judged before, if there are any. What is in the response cache
    costs nothing again.

    Raises:
        ArtifactError: There are no pictures.
        AnnotationError: A run is at work, or the response cache is damaged.
    """
    params = profile.annotate
    if params.annotator != "vlm" or params.vlm is None:
        say(f"The annotator {params.annotator!r} asks no server: it costs nothing.")
        return
    tree = parse(paths.CRITERIA / params.criteria)
    found = dataset.find(paths.DATA, params.captions, captionless=params.vlm.write_captions)
    limits = annotator.of_settings(params, profile.model.pixels, profile.model.buckets)
    with VLM(tree, params.vlm, limits, paths.ANSWERS).opened() as expert:
        requests = _requests(found.entries)
        judged = [one for one in map(expert.cost, requests) if one is not None]
        left = len(requests) - len(judged)
        captions = sum(one.title is not None for one in requests) / len(requests)
        table = Table(title=f"{left} of {len(requests)} pictures, {escape(params.vlm.model)}")
        table.add_column("")
        for name in _SHOWN:
            table.add_column(name, justify="right")
        _row(table, "at most", _most(expert, left, captions))
        if judged:
            total = functools.reduce(Cost.plus, judged)
            _row(table, "likely", total.times(left / len(judged)))
        _row(table, "spent so far", expert.spent())
        terms = _terms(params.vlm, expert.schema_tokens() * left)
    console().print(table)
    say(terms)


def _requests(entries: Sequence[Entry]) -> list[VLMRequest]:
    """Return what would be asked, of files with the same bytes about the first."""
    found: dict[str, VLMRequest] = {}
    for picture in annotator.pictures(entries):
        if picture.file.is_file():
            image = images.sha256(picture.file)
            found.setdefault(image, VLMRequest(image, picture.file, picture.title))
    return list(found.values())


def _most(expert: Agent, pictures: int, captions: float) -> Cost:
    """Estimate ``pictures``, a share ``captions`` of which want one."""
    without = expert.most(caption=False)
    caption = expert.most(caption=True).less(without)
    return without.times(pictures).plus(caption.times(pictures * captions))


def _row(table: Table, name: str, cost: Cost) -> None:
    calls = f"{cost.calls:,}" if cost.calls else "–"
    tokens = (f"{cost.prompt_tokens:,}", f"{cost.completion_tokens:,}")
    table.add_row(name, calls, *tokens, f"{cost.price:,.2f}")


def _terms(params: VLMParams, schema_tokens: int) -> str:
    cap = "no cap" if params.cost_cap is None else f"capped at {params.cost_cap:g}"
    return (
        f"At {params.prompt_price:g} a million tokens sent and {params.completion_price:g} a "
        f"million answered, {params.image_tokens} tokens a picture; {cap}. Tries and repairs "
        f"come on top, and of the schemas, where the server counts them, {schema_tokens:,} "
        "tokens at most."
    )
