"""``atelier data check``: a folder's layout, and which of its pictures are used."""

import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from atelier import images, parallel
from atelier.config.annotation import AnnotateParams
from atelier.criteria import dataset, layouts
from atelier.criteria.annotations import Quarantined
from atelier.criteria.caption_sources import stem
from atelier.criteria.dataset import Corpus, Entry
from atelier.criteria.layouts import Layout
from atelier.errors import ImageError
from atelier.reading import short
from tasks.run import progress

_EXAMPLES = 3
_REASONS = 10  # kinds of reasons that are shown


def run(folder: Path, params: AnnotateParams, captions: str | None) -> None:
    """Print layout, counts, what will be set aside and why, and three examples.

    Pictures are judged by their headers, which takes seconds; damage further on, and files of
    equal bytes, show in ``annotate``.

    Args:
        folder: The folder.
        params: Limits for pictures, and whether a model writes captions.
        captions: A table to try; None tries what the folder suggests.

    Raises:
        ArtifactError: The folder is absent or empty, or its table of captions is broken.
    """
    found = layouts.of(folder)
    chosen = Layout(captions, captions) if captions else next(iter(found), Layout("", None))
    writes = params.annotator == "vlm" and params.vlm is not None and params.vlm.write_captions
    corpus = dataset.find(folder, chosen.captions, captionless=writes)
    usable, aside = _by_header(folder, corpus, params)
    written = [entry.caption for entry in usable if entry.caption]
    _say(
        f"{folder}: {chosen.name}",
        f"  setting    {chosen.setting()}" + _in_force(chosen, params),
        *(f"  also there {one.name} ({one.setting()})" for one in found if one != chosen),
        f"  pictures   {len(usable)}",
        f"  captions   {len(written)}, {len(set(written))} different"
        + (f"; a model writes {len(usable) - len(written)}" if writes else ""),
        f"  artworks   {len({entry.artwork for entry in usable})}",
        f"  set aside  {len(aside)}",
        *_reasons(aside),
        *(f"  no table   {name}: {why}" for name, why in layouts.unread(folder).items()),
        *(f"  hidden     {count} files begin with a dot, ignored" for count in _hidden(folder)),
        *(f"  note       {note}" for note in corpus.notes),
        "  examples" if usable else "  nothing here can be used",
        *(f"    {one.file}: {short(one.caption)}" for one in _evenly(usable)),
    )


def _by_header(
    folder: Path, corpus: Corpus, params: AnnotateParams
) -> tuple[list[Entry], list[Quarantined]]:
    look = partial(_refusal, folder, params.largest_pixels, params.smallest_side_pixels)
    usable, aside = [], list(corpus.quarantined)
    with (
        progress.bar("check", total=len(corpus.entries), unit="files") as report,
        parallel.results(
            look, [one.file for one in corpus.entries], parallel.cores()
        ) as results,
    ):
        for done, (entry, reason) in enumerate(zip(corpus.entries, results, strict=True), 1):
            if reason is None:
                usable.append(entry)
            else:
                aside.append(Quarantined(file=entry.file, reason=reason))
            report(done, {"set aside": len(aside)})
    return usable, aside


def _refusal(folder: Path, largest: int, smallest: int, file: str) -> str | None:
    """Why a file cannot be used, by its header. Runs in a worker."""
    try:
        images.refuse_by_header(folder / file, largest, smallest)
    except ImageError as error:
        return str(error)
    return None


def _in_force(chosen: Layout, params: AnnotateParams) -> str:
    if chosen.captions == params.captions:
        return ", as in the profile in force"
    return f"; the profile in force has {Layout('', params.captions).setting()}"


def _reasons(aside: Sequence[Quarantined]) -> list[str]:
    """Reasons that differ in names and numbers alone are one, the most frequent first."""
    kinds: dict[str, list[Quarantined]] = {}
    for one in aside:
        kind = re.sub(r"\d+", "0", one.reason.replace(stem(one.file), "…"))
        kinds.setdefault(kind, []).append(one)
    ranked = sorted(kinds.values(), key=len, reverse=True)
    lines = [f"    {len(some):6} {some[0].file}: {some[0].reason}" for some in ranked]
    more = len(lines) - _REASONS
    return [*lines[:_REASONS], *[f"    and {more} more reasons"] * (more > 0)]


def _hidden(folder: Path) -> list[int]:
    count = sum(name.startswith(".") for _, _, names in os.walk(folder) for name in names)
    return [count] if count else []


def _evenly(usable: Sequence[Entry]) -> Sequence[Entry]:
    return usable[:: max(len(usable) // _EXAMPLES, 1)][:_EXAMPLES]


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
