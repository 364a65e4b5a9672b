"""``atelier dials``: a dial for each root, and the matrix of what each of them moves.

With every dial a whole turn to either side the same captions are painted from the same noise
as without, and judged by the annotator (and by the independent judge, where there is one). An
entry of the matrix is the change of A_pos - A_neg in one root, attributes an image, paired,
with its interval over captions. The diagonal is what a dial moves of its own root, the rest
what it disturbs.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from atelier import atomic, images
from atelier.config.profile import Profile, read_switch
from atelier.criteria import tree
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.images import Pixels
from atelier.metrics import negatives, statistics
from atelier.metrics.negatives import Verdicts
from atelier.metrics.statistics import Interval
from atelier.models import adapters, loading, sampling
from atelier.reports import dials_page, image_grids
from atelier.reports.dials_page import Measured, Turned
from atelier.starter import feature_network
from tasks.annotation import painted_pictures
from tasks.commands import paint
from tasks.evaluation import captions, judging
from tasks.run import paths, progress
from tasks.run.console import console, say
from tasks.training import dials
from tasks.training.prompts import Prompts

_SHARES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the grid, times the wish's share
_SHOWN = 3  # captions of the grid
NONE = "none"


@dataclass(frozen=True)
class Wish:
    """What is turned, and how it is measured.

    Attributes:
        model: What dials are added to, as ``atelier generate`` names it.
        roots: Of which dials; none: of all.
        steps: Of the training of each.
        share: Of a whole turn, to either side.
        pictures: Captions, at most.
        out: Folder for the matrix and the page; None: ``paths.DIALS_MEASURED``.
        document: Markdown file that gets the matrix, between marks with the profile's name.
    """

    model: str
    roots: Sequence[str]
    steps: int
    share: float
    pictures: int
    out: Path | None
    document: Path | None = None


def run(profile: Profile, wish: Wish) -> Path:
    """Train the dials that are absent, turn each, measure, and return the page's file.

    Raises:
        ArtifactError: θ1, the split or a model's weights are absent.
        ParamsError: A root or the model is unknown, or the document has no place for them.
    """
    criteria = tree.parse(paths.JUDGED_BY)
    roots = _roots(wish, criteria)
    name = read_switch(paths.PARAMS / "profile.yaml")
    if wish.document is not None:
        documented(wish.document, name, "")
    dials.train(profile, roots, wish.steps)
    painted, prompts = _paint(profile, wish, roots, criteria)
    out = wish.out or paths.DIALS_MEASURED
    files = written(painted, out)
    whole = {name: of for name, of in files.items() if len(of) == len(prompts)}
    said = verdicts(profile, criteria, whole)
    results = [_measured(who, found, roots, prompts, criteria) for who, found in said.items()]
    shown = {
        root: {
            share: [painted[_key(root, share)][place] for place in range(_shown(prompts))]
            for share in _shares(wish)
        }
        for root in roots
    }
    told = {
        "model": wish.model,
        "share": wish.share,
        "steps": wish.steps,
        "pictures": len(prompts),
        "captions": len(set(prompts)),
        "judges": {one.judge: [dataclasses.asdict(t) for t in one.turned] for one in results},
    }
    atomic.write(out / "dials.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    names = {root: _title(criteria, root) for root in criteria.roots()}
    atomic.write(out / "dials.png", images.png(_grid(shown, names)))
    if wish.document is not None:
        picture = wish.document.with_name(f"{wish.document.stem}-{name}.png")
        atomic.write(picture, (out / "dials.png").read_bytes())
        text = f"{markdown(told)}\n\n![Each dial, turned]({picture.name})"
        atomic.write(wish.document, documented(wish.document, name, text))
    page = out / "dials.html"
    atomic.write(
        page,
        dials_page.render(
            results, shown, prompts[: _shown(prompts)], names, model=wish.model,
            captions=len(set(prompts)), steps=wish.steps, share=wish.share,
        ),
    )  # fmt: skip
    for one in results:
        console().print(_table(one, criteria))
        say(_summary(one))
    return page


def _roots(wish: Wish, criteria: Tree) -> list[str]:
    unknown = sorted(set(wish.roots) - set(criteria.roots()))
    if unknown:
        raise ParamsError(
            f"--root {unknown[0]!r} is no root of the criteria, which are "
            f"{', '.join(criteria.roots())}"
        )
    return [root for root in criteria.roots() if not wish.roots or root in wish.roots]


def _shares(wish: Wish) -> list[float]:
    return [share * wish.share for share in _SHARES]


def _shown(prompts: Sequence[str]) -> int:
    return min(_SHOWN, len(prompts))


def _key(root: str, share: float) -> str:
    return NONE if share == 0 else f"{root} {share:+g}"


def _paint(
    profile: Profile, wish: Wish, roots: Sequence[str], criteria: Tree
) -> tuple[dict[str, list[Pixels]], list[str]]:
    """Paint the captions with every dial to either side; of half turns the first few alone."""
    model = paint.named(wish.model, profile)
    painter = loading.load(model.base)
    own = None
    if model.lora is not None:
        own = "model"
        adapters.attach(painter, own, model.lora)
    for root in roots:
        adapters.attach(painter, f"{paint.DIAL}{root}", dials.folder(root))
    records = captions.painted(captions.records(profile), wish.pictures)
    writer = Prompts(painter, criteria, profile.generate.seed)
    prompts = [writer.write(record, ()) for record in records]
    seeds = captions.seeds(profile.generate.seed, len(prompts))
    states: dict[str, tuple[dict[str, float], int]] = {NONE: ({}, len(prompts))}
    for root in roots:
        for share in _shares(wish):
            whole = abs(share) == wish.share
            states[_key(root, share)] = (
                {root: share} if share else {},
                len(prompts) if whole or not share else _shown(prompts),
            )
    painted: dict[str, list[Pixels]] = {}
    total, done = sum(count for _, count in states.values()), 0
    how = paint.how(model, profile)
    with progress.bar("turn", total, "pictures") as report:
        for name, (turned, count) in states.items():
            with adapters.use(painter.network, paint.state(own, turned)):
                painted[name] = list(
                    sampling.paint(
                        painter,
                        prompts[:count],
                        seeds[:count],
                        how,
                        pixels=model.base.pixels,
                        batch_images=profile.generate.batch_images,
                        report=progress.after(done, report),
                    )
                )
            done += count
    return painted, [record.caption for record in records]


def written(painted: Mapping[str, Sequence[Pixels]], out: Path) -> dict[str, list[Path]]:
    """Write the pictures of each state into a folder of its own; return their files."""
    files: dict[str, list[Path]] = {}
    for name, pictures in painted.items():
        files[name] = []
        for place, picture in enumerate(pictures):
            file = out / "pictures" / name.replace(" ", "") / f"{place:03}.png"
            atomic.write(file, images.png(picture))
            files[name].append(file)
    return files


def verdicts(
    profile: Profile, criteria: Tree, files: Mapping[str, Sequence[Path]]
) -> dict[str, dict[str, list[Verdicts]]]:
    """Return what each judge found on pictures of several states, by judge and state.

    Raises:
        AnnotationError: A picture got no answer.
    """
    judge = painted_pictures.annotator(profile, criteria)
    found: dict[str, dict[str, list[Verdicts]]] = {judge.name: {}}
    done = 0
    with progress.bar("judge", sum(map(len, files.values())), "pictures") as report:
        for name, of in files.items():
            said = painted_pictures.judge(judge, of, progress.after(done, report))
            hashes = [images.sha256(file) for file in of]
            found[judge.name][name] = negatives.verdicts(said, hashes, judge.name)
            done += len(of)
    second = judging.second(profile)
    if second is not None:
        known = criteria.leaves()
        found[feature_network.NAME] = {
            name: [
                {path: pole for path, pole, _ in one if path in known}
                for one in second.judge([np.array(_read(file)) for file in of])
            ]
            for name, of in files.items()
        }
    return found


def _read(file: Path) -> Any:
    return images.read(file, 2**31)


def _measured(
    judge: str,
    found: Mapping[str, Sequence[Verdicts]],
    roots: Sequence[str],
    prompts: Sequence[str],
    criteria: Tree,
) -> Measured:
    turned = []
    for name in (one for one in found if one != NONE):
        root, _, share = name.partition(" ")
        turned.append(
            Turned(
                root,
                float(share),
                {
                    other: _moved(found[name], found[NONE], other, prompts)
                    for other in criteria.roots()
                },
            )
        )
    turned.sort(key=lambda one: (roots.index(one.root), -one.share))
    return Measured(judge, turned)


def _moved(
    found: Sequence[Verdicts], base: Sequence[Verdicts], root: str, prompts: Sequence[str]
) -> Interval:
    """Change of A_pos - A_neg in a root, attributes an image."""
    now, before = (
        negatives.counts(said, "positive", root) - negatives.counts(said, "negative", root)
        for said in (found, base)
    )
    return statistics.difference(now, before, prompts)


def documented(file: Path, profile: str, text: str) -> str:
    """Return a Markdown file with ``text`` between ``<!-- dials: profile -->`` and its end.

    Raises:
        ParamsError: The file is absent, or has no such place.
    """
    block = re.compile(
        rf"(<!-- dials: {re.escape(profile)} -->\n).*?(<!-- end of dials -->)", re.DOTALL
    )
    content = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not block.search(content):
        raise ParamsError(
            f"{file} has no place for the dials of {profile}; write `<!-- dials: {profile} "
            "-->` and, on a later line, `<!-- end of dials -->`"
        )
    return block.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", content)


def markdown(told: Mapping[str, Any]) -> str:
    """Return the matrices of ``dials.json`` as Markdown."""
    lines = [
        f"Added to {told['model']}; each dial was trained for {told['steps']} steps and turned "
        f"by {told['share']:g} to either side; {told['pictures']} pictures of "
        f"{told['captions']} captions for each. An entry is the change of A_pos − A_neg, "
        "attributes per image, with its 95% interval over captions; the dial's own root is "
        "bold."
    ]
    for judge, turns in told["judges"].items():
        roots = list(turns[0]["moved"])
        lines += ["", f"| by {judge} | {' | '.join(roots)} |", f"|---|{'---|' * len(roots)}"]
        for turned in turns:
            cells = [_cell(turned["moved"][root], root == turned["root"]) for root in roots]
            lines.append(
                f"| {turned['root']} {_signed(turned['share'], 'g')} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _cell(moved: Mapping[str, float], own: bool) -> str:
    if moved["low"] == moved["high"] == 0:  # every difference is 0
        return "none changed"
    said = _signed(moved["estimate"], ".2f")
    said = f"**{said}**" if own else said
    return f"{said} [{_signed(moved['low'], '.2f')}, {_signed(moved['high'], '.2f')}]"


def _signed(value: float, form: str) -> str:
    return f"{value:+{form}}".replace("-", "−")


def _grid(
    shown: Mapping[str, Mapping[float, Sequence[Pixels]]], names: Mapping[str, str]
) -> Pixels:
    """The first caption with each dial at each share."""
    shares = list(next(iter(shown.values())))
    rows = {
        names[root]: [turned[share][0] for share in shares] for root, turned in shown.items()
    }
    headings = [_signed(share, "g") if share else "without" for share in shares]
    return np.array(image_grids.labelled(rows, headings))


def _title(criteria: Tree, root: str) -> str:
    node = criteria.criteria[root]
    return getattr(node, "name", root)


def _table(one: Measured, criteria: Tree) -> Table:
    table = Table(title=escape(f"change of A_pos - A_neg an image, by {one.judge}"))
    table.add_column("dial", no_wrap=True)
    for root in criteria.roots():
        table.add_column(root, justify="right")
    for turned in one.turned:
        cells = []
        for root, moved in turned.moved.items():
            text = f"{moved.estimate:+.2f}\n({moved.low:+.2f} to {moved.high:+.2f})"
            cells.append(f"[bold]{text}[/bold]" if root == turned.root else text)
        table.add_row(escape(f"{turned.root} {turned.share:+g}"), *cells)
    return table


def _summary(one: Measured) -> str:
    return (
        f"{one.judge}: a dial moves its own root by {one.own():.2f} attributes an image on "
        f"average and each other root by {one.others():.2f}, as absolute values."
    )
