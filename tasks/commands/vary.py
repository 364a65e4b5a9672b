"""``atelier vary``: grids of the same captions and noise while one setting varies.

A setting of an objective (``cpo.objectives.dpo.beta=10,100``) needs a training for each value,
all from one θ1; ``flows.dvc.varied`` lets DVC run them. A setting of sampling
(``generate.steps=2,4``) needs none. Each row of a grid is a value. All rows of a grid are
sampled alike, as the objective of the profile is, and judged by the annotator (and by the
independent judge, where there is one), with intervals over captions.
"""

import dataclasses
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from atelier import atomic, images
from atelier.config.model import public_name
from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.images import Pixels
from atelier.metrics import negatives
from atelier.models import adapters, loading, sampling
from atelier.models.files import weight_files
from atelier.models.sampling_settings import Sampling
from atelier.reports import image_grids
from tasks.commands import dials, paint
from tasks.evaluation import candidates, captions
from tasks.run import paths, progress, resume
from tasks.run.console import say
from tasks.training import keys
from tasks.training.prompts import Prompts

_OBJECTIVE = re.compile(r"cpo\.objectives\.([a-z0-9][a-z0-9-]*)\.([a-z_]+)")
_SAMPLING = re.compile(r"generate\.(steps|guidance|distilled_guidance)")
_SIGNS = {
    "omega": "ω",
    "beta": "β",
    "teacher_guidance": "guidance in targets",
    "steps": "sampling steps",
}
_LABELS = {candidates.BASE: "base", candidates.THETA1: "θ1"}
_PAINTED = paths.ARTIFACTS / "vary"  # single pictures, which the judges read
_QUALITY = 85  # of the written WebP
_MARK = re.compile(r"(<!-- vary: (\S+) -->\n).*?(<!-- end of vary -->)", re.DOTALL)


@dataclass(frozen=True)
class Variation:
    """One setting and the values that it takes, from ``NAME=VALUES``.

    Attributes:
        text: As it was typed.
        objective: The entry of ``cpo.objectives`` that the setting belongs to; None for one of
            sampling.
        field: The setting within the objective, or within ``generate``.
        values: At least one.
    """

    text: str
    objective: str | None
    field: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Return what its files are called."""
        return "-".join(filter(None, ["vary", self.objective, self.field])).replace("_", "-")

    def state(self, value: object) -> str:
        """Return the name of the objective with this value."""
        number = re.sub("^-", "minus-", f"{value}")
        words = f"{self.objective}-{self.field}-{number}".lower()
        return re.sub(r"[^a-z0-9]+", "-", words).strip("-")

    def label(self, value: object) -> str:
        """Return what a row is called."""
        number = f"{value:g}" if isinstance(value, int | float) else f"{value}"
        return f"{_SIGNS.get(self.field, self.field.replace('_', ' '))} {number}"


@dataclass(frozen=True)
class Wish:
    """What is varied, and what is painted.

    Attributes:
        variations: One grid each.
        model: What is sampled where a setting of sampling varies, as ``atelier generate``
            names it.
        pictures: Captions that are judged, at most.
        columns: Different captions that a grid shows, at most.
        out: Folder for grids and records.
        document: Markdown file that gets the grids, between marks; None: no file.
    """

    variations: Sequence[Variation]
    model: str
    pictures: int
    columns: int
    out: Path
    document: Path | None = None


@dataclass(frozen=True)
class _Row:
    """A row of a grid: a state of the network, and how it is sampled."""

    label: str
    value: Any
    state: str | None
    how: Sampling

    @property
    def key(self) -> str:
        """Return what is the same for rows with the same pictures."""
        own = (self.how.steps, float(self.how.guidance), self.how.distilled_guidance)
        return "-".join(map(str, (self.state or candidates.BASE, *own)))


def parse(text: str) -> Variation:
    """Return what ``NAME=VALUES`` asks for.

    Raises:
        ParamsError: It names no setting that can be varied, or no list of values.
    """
    name, _, listed = text.partition("=")
    of_objective, of_sampling = _OBJECTIVE.fullmatch(name), _SAMPLING.fullmatch(name)
    if of_objective is None and of_sampling is None:
        raise ParamsError(
            f"{text!r}: the setting should be one of an objective, as "
            "cpo.objectives.cpo-s.omega=0,1,2, or of sampling, as generate.steps=2,4,8; for "
            "any other `atelier sweep` runs the pipeline"
        )
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        values = []
    if not values or len(set(map(str, values))) < len(values):
        raise ParamsError(
            f"{text!r}: give different values after =, with commas between, as {name}=1,2,4"
        )
    if of_objective is not None:
        return Variation(text, of_objective[1], of_objective[2], tuple(values))
    assert of_sampling is not None
    return Variation(text, None, of_sampling[1], tuple(values))


def in_document(file: Path) -> list[Variation]:
    """Return what the marks of a Markdown file ask for: ``<!-- vary: NAME=VALUES -->``.

    Raises:
        ParamsError: The file is absent or has no marks.
    """
    content = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = [parse(text) for _, text, _ in _MARK.findall(content)]
    if not found:
        raise ParamsError(
            f"{file} has no place for a grid; write `<!-- vary: generate.steps=2,4,8 -->` and, "
            "on a later line, `<!-- end of vary -->`"
        )
    return found


def objectives(values: Mapping[str, Any], wish: Wish) -> dict[str, dict[str, Any]]:
    """Return the entries of ``cpo.objectives`` that the grids need.

    Args:
        values: Of the profile.
        wish: What is varied.

    Raises:
        ParamsError: The profile has no such objective.
    """
    known: dict[str, dict[str, Any]] = values["cpo"]["objectives"]
    found = {wish.model: known[wish.model]} if wish.model in known else {}
    for one in wish.variations:
        if one.objective is None:
            continue
        if one.objective not in known:
            raise ParamsError(
                f"{one.text!r}: the profile's objectives are {', '.join(known)}; there is no "
                f"{one.objective!r}"
            )
        for value in one.values:
            found[one.state(value)] = known[one.objective] | {
                one.field: value,
                "milestones": [],
            }
    return found


def run(profile: Profile, wish: Wish, usual: Profile, made_by: Mapping[str, Any]) -> list[Path]:
    """Paint, judge and write the grids; return their files.

    Args:
        profile: In force: its objectives are trained.
        wish: What is varied and painted.
        usual: The profile before ``objectives`` took the place of its own.
        made_by: What the records say of where they come from.

    Raises:
        ArtifactError: θ1, the split or a model's weights are absent.
        ParamsError: The model is unknown, or the document has no place for a grid.
    """
    criteria = tree.parse(paths.JUDGED_BY)
    for one in wish.variations:
        if wish.document is not None:
            documented(wish.document, one.text, "")
    grids = {one: _rows(one, wish, usual) for one in wish.variations}
    shown, painted, prompts = _paint(profile, wish, list(grids.values()), criteria)
    files = dials.written(painted, _PAINTED)
    said = dials.verdicts(profile, criteria, files)
    record = {**made_by, **_pinned(profile)}
    written = []
    for one, rows in grids.items():
        told = record | _told(one, rows, profile, said, criteria, prompts)
        told |= {"captions": prompts.captions, "seeds": prompts.seeds, "shown": shown}
        picture = wish.out / f"{one.name}.webp"
        _draw(told, rows, painted, picture)
        atomic.write(
            picture.with_suffix(".json"),
            json.dumps(told, indent=1, ensure_ascii=False) + "\n",
        )
        if wish.document is not None:
            link = Path(os.path.relpath(picture, wish.document.parent)).as_posix()
            text = markdown(told, link)
            atomic.write(wish.document, documented(wish.document, one.text, text))
        say("\n".join(table(told)))
        written.append(picture)
    return written


@dataclass(frozen=True)
class _Prompts:
    """What every row paints: prompts, their captions, and the seed of each one's noise."""

    texts: list[str]
    captions: list[str]
    seeds: list[int]


def _rows(one: Variation, wish: Wish, usual: Profile) -> list[_Row]:
    """The rows of a grid: θ1 first where trainings are compared that start from it."""
    if one.objective is None:
        how = paint.how(paint.named(wish.model, usual), usual)
        state = None if wish.model == candidates.BASE else wish.model
        return [
            _Row(one.label(value), value, state, _sampled(one, how, value))
            for value in one.values
        ]
    guided = not usual.cpo.objectives[one.objective].sampled_without_guidance()
    how = candidates.how(usual).of(guided=guided)
    first = _Row(_LABELS[candidates.THETA1], None, candidates.THETA1, how)
    return [first, *(_Row(one.label(v), v, one.state(v), how) for v in one.values)]


def _sampled(one: Variation, how: Sampling, value: Any) -> Sampling:
    least = 1
    if not isinstance(value, int if one.field == "steps" else int | float) or value < least:
        raise ParamsError(f"{one.text!r}: {value!r} should be a number of at least {least}")
    return dataclasses.replace(how, **{one.field: value})


def _paint(
    profile: Profile, wish: Wish, grids: Sequence[Sequence[_Row]], criteria: Tree
) -> tuple[list[int], dict[str, list[Pixels]], _Prompts]:
    """Paint the captions with each row; rows that are the same are painted once."""
    rows = {row.key: row for grid in grids for row in grid}
    painter = loading.load(profile.model)
    for state in dict.fromkeys(row.state for row in rows.values() if row.state is not None):
        lora = paint.named(state, profile).lora
        assert lora is not None
        adapters.attach(painter, state, lora)
    records = captions.painted(captions.records(profile), wish.pictures)
    writer = Prompts(painter, criteria, profile.generate.seed)
    prompts = _Prompts(
        [writer.write(record, ()) for record in records],
        [record.caption for record in records],
        captions.seeds(profile.generate.seed, len(records)),
    )
    painted: dict[str, list[Pixels]] = {}
    with progress.bar("vary", len(rows) * len(records), "pictures") as report:
        for key, row in rows.items():
            with adapters.use(painter.network, row.state):
                painted[key] = list(
                    sampling.paint(
                        painter,
                        prompts.texts,
                        prompts.seeds,
                        row.how,
                        pixels=profile.model.pixels,
                        batch_images=profile.generate.batch_images,
                        report=progress.after(len(painted) * len(records), report),
                    )
                )
    different = [prompts.captions.index(one) for one in dict.fromkeys(prompts.captions)]
    return different[: wish.columns], painted, prompts


def _pinned(profile: Profile) -> dict[str, Any]:
    """What the pictures are made of, so that they can be made again."""
    return {
        "base": {
            "name": public_name(profile.model),
            "hash": resume.key(keys.base(profile)),
        },
        "theta1": images.sha256(weight_files.file(paths.SFT)),
        "training": profile.cpo.training.model_dump(mode="json"),
        "lora": profile.cpo.model_dump(mode="json")["lora"],
    }


def _told(
    one: Variation,
    rows: Sequence[_Row],
    profile: Profile,
    said: Mapping[str, Mapping[str, Sequence[negatives.Verdicts]]],
    criteria: Tree,
    prompts: _Prompts,
) -> dict[str, Any]:
    """What is written down of a grid."""
    found = []
    for row in rows:
        objective = profile.cpo.objectives.get(row.state or "")
        lora = None if row.state is None else paint.named(row.state, profile).lora
        file = None if lora is None else weight_files.brought(lora)
        counted = {
            judge: negatives.mean(of[row.key], criteria, prompts.captions, "negative")
            for judge, of in said.items()
        }
        found.append(
            {
                "row": row.label,
                "state": row.state or candidates.BASE,
                "value": row.value,
                "objective": objective and objective.model_dump(mode="json"),
                "lora": None if file is None else images.sha256(file),
                "sampling": dataclasses.asdict(row.how),
                "negatives": {judge: dataclasses.asdict(of) for judge, of in counted.items()},
            }
        )
    return {"varied": one.text, "rows": found}


def _draw(
    told: Mapping[str, Any],
    rows: Sequence[_Row],
    painted: Mapping[str, Sequence[Pixels]],
    file: Path,
) -> None:
    shown: list[int] = told["shown"]
    judge = next(iter(told["rows"][0]["negatives"]))
    named = {
        f"{row.label} ({of['negatives'][judge]['estimate']:.2f})": [
            painted[row.key][place] for place in shown
        ]
        for row, of in zip(rows, told["rows"], strict=True)
    }
    grid = image_grids.labelled(named, [told["captions"][place] for place in shown])
    atomic.write(file, _webp(grid))


def _webp(grid: Image.Image) -> bytes:
    content = io.BytesIO()
    grid.save(content, "WEBP", quality=_QUALITY, method=6)
    return content.getvalue()


def documented(file: Path, varied: str, text: str) -> str:
    """Return a Markdown file with ``text`` between the marks of a variation.

    Raises:
        ParamsError: The file is absent, or has no such marks.
    """
    known = [one.text for one in in_document(file)]
    if varied not in known:
        raise ParamsError(f"{file} has no mark `<!-- vary: {varied} -->`")
    content = file.read_text(encoding="utf-8")
    return _MARK.sub(
        lambda of: f"{of[1]}{text}\n{of[3]}" if of[2] == varied else of[0], content
    )


def markdown(told: Mapping[str, Any], link: str) -> str:
    """Return a grid's picture, how it was made, and its table as Markdown."""
    names = ", ".join(row["row"] for row in told["rows"])
    return "\n".join([f"![Rows: {names}]({link})", "", _about(told), "", *table(told)])


def _about(told: Mapping[str, Any]) -> str:
    """How a grid was made, in a paragraph."""
    last = told["rows"][-1]
    setting = str(told["varied"]).partition("=")[0]
    words = [f"`{setting}`."]
    if last["objective"] is not None and "objectives" in setting:
        training = told["training"]
        words.append(
            f"Each θ is trained for {training['steps']} steps of {training['batch_images']} "
            f"images and sampled with {Sampling(**last['sampling']).in_words()}, as θ1 is."
        )
    else:
        words.append(f"All rows are {_LABELS.get(last['state'], last['state'])}.")
    different = len(set(told["captions"]))
    words.append(
        f"In brackets, and in the table with 95% intervals over captions: negative attributes "
        f"per picture, in {len(told['captions'])} pictures of {different} captions."
    )
    return f"*{' '.join(words)}*"


def table(told: Mapping[str, Any]) -> list[str]:
    """Return the lines of a grid's table: #A_neg of each row by each judge."""
    judges = list(told["rows"][0]["negatives"])
    lines = [f"| | {' | '.join(f'#A_neg by {one}' for one in judges)} |"]
    lines.append(f"|---|{'---|' * len(judges)}")
    for row in told["rows"]:
        cells = [_cell(row["negatives"][judge]) for judge in judges]
        lines.append(f"| {row['row']} | {' | '.join(cells)} |")
    return lines


def _cell(found: Mapping[str, float]) -> str:
    return f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
