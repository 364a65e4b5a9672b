"""``python -m tasks annotate --dry-run``: what the agent would ask, before it asks anything."""

import functools

from rich.markup import escape
from rich.table import Table

from atelier.annotators.vlm.agent import Agent, Cost
from atelier.config.annotation import VLMParams
from atelier.config.profile import Profile
from atelier.criteria import dataset
from atelier.criteria.tree import parse
from tasks.annotation import agent
from tasks.run import paths
from tasks.run.console import console, say

_SHOWN = ("calls", "tokens sent", "tokens answered", "cost")


def run(profile: Profile) -> None:
    """Print calls, tokens and cost of the pictures in ``paths.DATA``; nothing is sent.

    The upper line is true if every criterion were judged in every picture. The middle one goes
    by what was asked for the pictures that were judged before, if there are any. What is in the
    ledger costs nothing again.

    Raises:
        ArtifactError: There are no pictures.
        AnnotationError: A run is at work, or the ledger is damaged.
    """
    params = profile.annotate
    if params.annotator != "vlm" or params.vlm is None:
        say(f"The annotator {params.annotator!r} asks nobody: it costs nothing.")
        return
    tree = parse(paths.CRITERIA / params.criteria)
    found = dataset.find(paths.DATA, params.captions, captionless=params.vlm.write_captions)
    with agent.opened(tree, params.vlm, params.largest_pixels) as expert:
        sights = agent.sights(found.entries)
        judged = [one for one in map(expert.cost, sights) if one is not None]
        left = len(sights) - len(judged)
        captions = sum(one.title is not None for one in sights) / len(sights)
        table = Table(title=f"{left} of {len(sights)} pictures, {escape(params.vlm.model)}")
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
