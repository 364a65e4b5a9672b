"""``atelier judge certify``: examine a judge, write its certificate and the page of it.

The starter's judge is examined on drawings whose true poles are known, drawn again from
a seed of their own and passed through the starter's codec, as painted pictures are. Any other
judge is examined on pictures of ``data/``, or of a folder, against what people or other judges
said of them in files.
"""

import datetime
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from atelier import atomic, images
from atelier.annotators import choice
from atelier.annotators.inspection import Limits
from atelier.annotators.measured import Measured
from atelier.annotators.vlm.annotator import VLM
from atelier.certificates import certificate, controls, examination
from atelier.certificates.certificate import Certificate, Range, Standing
from atelier.certificates.examination import Observed, Said, Shown
from atelier.certificates.findings import Examined, Pairs, Truth
from atelier.config.annotation import VLMParams
from atelier.config.profile import Profile
from atelier.criteria import annotations, dataset, tree
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole, Tree
from atelier.errors import AnnotationError, ArtifactError, ImageError
from atelier.reports import certificate_page
from atelier.starter import drawings, feature_network
from tasks.annotation import annotator as annotators
from tasks.commands.agreement import through_codec
from tasks.commands.criteria import in_force
from tasks.run import paths, progress
from tasks.run.console import console, say

_SEED = 23  # of the drawings: neither the paintings' nor the sketchbook's, nor `agreement`'s
PAINTER = "the painter"
_DRAWN = Limits(smallest_side_pixels=1, largest_pixels=2**31, pixels=None)


@dataclass(frozen=True)
class Wish:
    """What is examined.

    Attributes:
        judge: JSONL file of the answers of the judge, a person say; None: the profile's.
        name: Which of the annotators in that file; None: there is one.
        against: JSONL files of what others said of the same pictures.
        folder: Pictures to examine on; None: the starter's drawings, or ``data/``.
        pictures: How many, at most.
        pairs: How many pairs of them are compared.
        seed: Of the draws.
        out: Folder for the certificate and its page.
    """

    judge: Path | None
    name: str | None
    against: Sequence[Path]
    folder: Path | None
    pictures: int
    pairs: int
    seed: int
    out: Path


@dataclass(frozen=True)
class Sitting:
    """The pictures of an examination, and what is known of them.

    Attributes:
        shown: The pictures.
        images: Their hashes.
        truths: By the name of a reference: what it says of each.
        about: What each reference is.
        of: Which pictures these are.
        limits: What of them is seen.
    """

    shown: Sequence[Shown]
    images: Sequence[str]
    truths: Mapping[str, Truth]
    about: Mapping[str, str]
    of: str
    limits: Limits


def run(profile: Profile, wish: Wish) -> Path:
    """Examine a judge; write its certificate; return the page's file.

    Raises:
        ArtifactError: There are no pictures, or no answers of the judge.
        AnnotationError: A file of judgements does not fit, or the judge gives no answer.
        ParamsError: The annotator judges no new pictures.
    """
    criteria = tree.parse(paths.JUDGED_BY if paths.JUDGED_BY.is_file() else in_force())
    with tempfile.TemporaryDirectory() as scratch:
        sitting = _sitting(profile, wish, criteria, Path(scratch))
        if wish.judge is not None:
            name, examined = _of_records(wish.judge, wish.name, sitting, criteria)
            settings: dict[str, str] = {}
        else:
            judge = choice.of_new_pictures(
                profile.annotate.annotator,
                profile.annotate.vlm,
                criteria,
                sitting.limits,
                responses=paths.ANSWERS,
            )
            name, settings = judge.name, _settings(profile.annotate.vlm, judge)
            examined = _examined(judge, sitting, wish, criteria, Path(scratch))
    made = _certificate(name, settings, examined, sitting)
    stem = re.sub(
        r"[^\w.-]+", "-", f"{name} {criteria.domain} {criteria.identity[-6:]}".lower()
    ).strip("-.")
    certificate.write(made, wish.out / f"{stem}.json")
    page = wish.out / f"{stem}.html"
    atomic.write(page, certificate_page.render(made, criteria))
    console().print(_table(made))
    say(_summary(made))
    return page


def _sitting(profile: Profile, wish: Wish, criteria: Tree, scratch: Path) -> Sitting:
    own = wish.folder is None and wish.judge is None and not wish.against
    if own and profile.evaluate.second_judge:
        return _drawings(wish, criteria, scratch)
    limits = annotators.of_settings(
        profile.annotate, profile.model.pixels, profile.model.buckets
    )
    if wish.folder is not None:
        found = dataset.find(wish.folder, None, captionless=True)
        rows = [
            Shown(wish.folder / one.file, one.artwork, one.caption or None)
            for one in found.entries
        ]
        of = f"pictures of the folder {wish.folder.name}"
    else:
        known = annotations.read(paths.ANNOTATE / "images.jsonl", annotations.Image)
        rows = [Shown(paths.DATA / one.file, one.artwork, one.caption) for one in known]
        of = "pictures of data/"
    hashed = [(one, images.sha256(one.file)) for one in rows if one.file.is_file()]
    said = _read(wish.against, criteria)
    judged = {image for truth in said.values() for image in truth}
    if judged:
        hashed = [(one, image) for one, image in hashed if image in judged]
    chosen = [one for one in _spread(hashed, wish.seed) if _usable(one[0], limits)]
    chosen = chosen[: wish.pictures]
    if len(chosen) < 2:
        where = "the files of --against speak of" if judged else "can be used"
        raise ArtifactError(
            f"of {len(rows)} {of} fewer than two {where}; name other files or another folder"
        )
    return Sitting(
        shown=[one for one, _ in chosen],
        images=[image for _, image in chosen],
        truths={
            name: [truth.get(image, {}) for _, image in chosen] for name, truth in said.items()
        },
        about=dict.fromkeys(said, "judgements in a file"),
        of=of,
        limits=limits,
    )


def _usable(one: Shown, limits: Limits) -> bool:
    """Whether a picture can be read; a header is believed until the judge opens the file."""
    try:
        images.refuse_by_header(one.file, limits.largest_pixels, limits.smallest_side_pixels)
    except ImageError:
        return False
    return True


def _drawings(wish: Wish, criteria: Tree, scratch: Path) -> Sitting:
    """Drawings of which the painter knows the poles, as the codec leaves them."""
    drawn = list(drawings.paintings(wish.pictures, _SEED + wish.seed))
    pixels, _ = through_codec([one.pixels for one in drawn])
    shown = []
    for place, (one, picture) in enumerate(zip(drawn, pixels, strict=True)):
        file = scratch / "drawn" / f"{place:05}.png"
        atomic.write(file, images.png(picture))
        shown.append(Shown(file, str(place), one.caption))
    known = criteria.leaves()
    network = feature_network.read(paths.FEATURE_NETWORK)
    second: list[dict[str, Pole]] = [
        {path: pole for path, pole, _ in said if path in known}
        for said in network.judge(pixels)
    ]
    return Sitting(
        shown=shown,
        images=[images.sha256(one.file) for one in shown],
        truths={
            PAINTER: [
                {p: pole for p, pole in one.poles.items() if p in known} for one in drawn
            ],
            feature_network.NAME: second,
        },
        about={
            PAINTER: "what the painter of the drawing drew on purpose: the truth",
            feature_network.NAME: "the independent judge, trained on other drawings",
        },
        of="new drawings of the starter, after its codec",
        limits=_DRAWN,
    )


def _examined(
    judge: Measured | VLM, sitting: Sitting, wish: Wish, criteria: Tree, scratch: Path
) -> Examined:
    count = len(sitting.shown)
    times = examination.questions(judge, sitting.shown)
    with progress.bar("certify", count * times, "pictures") as report:
        observed = examination.examine(
            judge,
            criteria,
            sitting.shown,
            scratch,
            largest_pixels=sitting.limits.largest_pixels,
            seed=wish.seed,
            report=report,
        )
    places = [(place, observed.strangers[place]) for place in range(min(wish.pairs, count))]
    pairs = None
    if places:
        files = [one.file for one in sitting.shown]
        with progress.bar("compare", len(places), "pairs") as report:
            said = judge.compare_many(
                [(files[one], files[other]) for one, other in places],
                list(criteria.leaves()),
                report,
            )
        pairs = Pairs(places, said)
    return _with(observed, sitting, criteria, pairs)


def _with(
    observed: Observed, sitting: Sitting, criteria: Tree, pairs: Pairs | None
) -> Examined:
    if all(one is None for one in observed.plain):
        raise AnnotationError(f"the judge gave no answer about any of the {sitting.of}")
    return Examined(
        tree=criteria,
        units=[one.unit for one in sitting.shown],
        captions=[one.caption for one in sitting.shown],
        observed=observed,
        references=sitting.truths,
        pairs=pairs,
    )


def _of_records(
    file: Path, name: str | None, sitting: Sitting, criteria: Tree
) -> tuple[str, Examined]:
    """What a person, or a judge whose answers are in a file, said of the pictures."""
    found = _judgements(file, criteria)
    names = sorted({one.annotator for one in found})
    if name is None and len(names) != 1:
        raise AnnotationError(f"{file} has answers of {', '.join(names)}; say whose by --name")
    chosen = name or names[0]
    said: dict[str, dict[str, tuple[Pole, float]]] = {}
    for one in found:
        if one.annotator == chosen:
            said.setdefault(one.image, {})[one.criterion] = (one.pole, one.confidence)
    plain: list[Said | None] = [said.get(image) for image in sitting.images]
    if all(one is None for one in plain):
        raise AnnotationError(
            f"{file} has no answer of {chosen} about any of the {sitting.of}; are they other "
            "pictures, or is --name another one?"
        )
    strangers = examination.derangement([one.unit for one in sitting.shown], 0)
    truths = {name: truth for name, truth in sitting.truths.items() if name != chosen}
    other = Sitting(**{**vars(sitting), "truths": truths})
    return chosen, _with(Observed(plain, {}, strangers), other, criteria, None)


def _read(files: Sequence[Path], criteria: Tree) -> dict[str, dict[str, dict[str, Pole]]]:
    """What each annotator of some files says of each picture."""
    said: dict[str, dict[str, dict[str, Pole]]] = {}
    for file in files:
        for one in _judgements(file, criteria):
            of = said.setdefault(one.annotator, {}).setdefault(one.image, {})
            of[one.criterion] = one.pole
    return said


def _judgements(file: Path, criteria: Tree) -> list[Judgement]:
    """Judgements of a file by their present paths; those of other criteria are left out."""
    if not file.is_file():
        raise ArtifactError(f"{file} is absent; name a JSONL file of judgements")
    present = {
        name: path for path, leaf in criteria.leaves().items() for name in (path, *leaf.aliases)
    }
    return [
        one.model_copy(update={"criterion": present[one.criterion]})
        for one in annotations.read(file, Judgement)
        if one.criterion in present
    ]


def _spread(rows: Sequence[tuple[Shown, str]], seed: int) -> Iterable[tuple[Shown, str]]:
    """Different pictures in an order that a seed draws."""
    import numpy as np

    once = list({image: one for one, image in rows}.items())
    for place in np.random.default_rng(seed).permutation(len(once)):
        image, one = once[place]
        yield one, image


def _settings(vlm: VLMParams | None, judge: Measured | VLM) -> dict[str, str]:
    if vlm is None or isinstance(judge, Measured):
        return {}
    shown = ("model", "answers", "activation", "pixels", "votes", "temperature")
    return {name: str(getattr(vlm, name)) for name in shown}


def _certificate(
    name: str, settings: Mapping[str, str], examined: Examined, sitting: Sitting
) -> Certificate:
    asked = {n: controls.ABOUT[n] for n in controls.ABOUT if n in _done(examined.observed)}
    return Certificate(
        format=1,
        annotator=name,
        criteria=examined.tree.identity,
        settings=dict(settings),
        pictures=len(sitting.shown),
        unanswered=sum(one is None for one in examined.observed.plain),
        units=len(set(examined.units)),
        of=sitting.of,
        references={n: sitting.about[n] for n in examined.references},
        asked=asked,
        standings=examined.standings(),
        roots=examined.roots(),
        calibration=examined.calibration(),
        cost={what: round(value, 6) for what, value in examined.observed.cost.items()},
        made=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _done(observed: Observed) -> set[str]:
    done = set(observed.controls)
    return done | ({controls.LOOKS} if controls.REPEATED in done else set())


def _table(made: Certificate) -> Table:
    first = next(iter(made.references), None)
    title = f"{made.annotator}, certificate {made.version}"
    table = Table(title=escape(title), caption=escape(f"{made.pictures} {made.of}"))
    table.add_column("criterion", no_wrap=True)
    for column in ("spoke", f"agrees with {first}" if first else "agrees", "kappa", "controls"):
        table.add_column(escape(column), justify="right")
    for path, one in made.standings.items():
        against = None if first is None else one.against[first]
        table.add_row(
            escape(path),
            _ends(one.spoke),
            _ends(None if against is None else against.agree),
            _ends(None if against is None else against.kappa),
            escape(_verdict(one)),
        )
    return table


def _verdict(one: Standing) -> str:
    if one.failing:
        return f"fails {', '.join(one.failing)}"
    return {"passes": "passes", "open": "not shown"}[one.verdict] if one.controls else "none"


def _ends(found: Range | None) -> str:
    if found is None:
        return "–"
    return f"{found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})"


def _summary(made: Certificate) -> str:
    verdicts = [one.verdict for one in made.standings.values()]
    if not made.asked:
        return f"{made.annotator}: answers in a file, so no control could be done."
    return (
        f"Of {len(verdicts)} criteria {verdicts.count('passes')} pass all controls, "
        f"{verdicts.count('fails')} fail one, {verdicts.count('open')} were seen too seldom to "
        f"tell. Certificate {made.version}."
    )
