"""``atelier compare A B``: two registered models, compared with intervals.

Both paint the same test captions from the same noise, one annotator judges both, and the
difference is taken picture by picture, with an interval over captions. The alias ``serving``
is on the model that was found better last; unlike ``champion``, which follows dvc.lock, nothing
but this moves it, by

    the rule: B takes the place of A if the 95% interval of #A_neg(B) - #A_neg(A) lies below
    zero, and B's FID is at most (1 + slack) times A's.

By the same rule B may take the alias ``champion``, if that is asked for.

The base is called ``base``; a model ``theta@champion``, ``theta/3``, ``theta1/1``, or by its
whole address, ``models:/…``.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from atelier import atomic, images
from atelier.certificates import certificate
from atelier.config.profile import Profile, read_switch
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.metrics import comparison, negatives
from atelier.metrics.comparison import Measured, Painted, Preference, Real, Result
from atelier.metrics.fid import Distance
from atelier.models import adapters, loading, sampling
from atelier.models.files import weight_files
from tasks.annotation import painted_pictures
from tasks.evaluation import candidates, captions, pictures, scoring
from tasks.run import paths, progress
from tasks.run.console import console
from tasks.tracking import registry
from tasks.training.prompts import Prompts

SERVING = "serving"
_NO_LIMIT = 2**31  # pixels; these pictures are our own


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: As it was asked for.
        address: In the registry, with its number; None for the base.
        lora: Folder of its weights; None for the base.
        guided: Whether it is sampled with guidance, where the profile has any.
    """

    name: str
    address: str | None
    lora: Path | None
    guided: bool = True


def run(
    profile: Profile,
    first: str,
    second: str,
    *,
    promote: bool,
    slack: float,
    crown: bool = False,
    pairwise: bool = False,
) -> None:
    """Paint, judge and compare; print and log the table; move the alias if the rule says so.

    Args:
        profile: In force; says what is painted, and how it is judged.
        first: The model to beat. ``serving`` where none serves yet is the base.
        second: The model that may take its place.
        promote: Move the alias ``serving`` to the second if the rule holds.
        slack: By which share the second's FID may be worse.
        crown: Move the alias ``champion`` to the second if the rule holds.
        pairwise: Also let the annotator see both pictures of each caption, in both orders, and
            say by each criterion which shows more of the good pole.

    Raises:
        ParamsError: A model is not in the registry, or cannot be promoted.
        ArtifactError: The test part is absent, or the weights belong to another base.
    """
    profile_name = read_switch(paths.SWITCH)
    sides = [_side(name, profile_name, profile) for name in (first, second)]
    if (promote or crown) and sides[1].address is None:
        raise ParamsError(f"{second} is no registered model, so it cannot be promoted")
    criteria = tree.parse(paths.JUDGED_BY)
    test = captions.records(profile)
    examined = captions.painted(test, profile.generate.prompts)
    files = _paint(sides, examined, criteria, profile)
    painted = _judged(sides, files, criteria, profile)
    results = comparison.compare(
        painted,
        _measured(painted, test, examined, profile),
        criteria,
        scores={},
        captions=[record.caption for record in examined],
        reference="A",
    )
    verdict = judge(results["A"], results["B"], slack)
    preferred: dict[str, Preference] = {}
    if pairwise:
        preferred = _preferred(files, examined, criteria, profile)
    said = _said(sides, results, verdict) | {
        "preferences": {path: dataclasses.asdict(one) for path, one in preferred.items()}
    }
    atomic.write(paths.COMPARISON, json.dumps(said, ensure_ascii=False, indent=2) + "\n")
    console().print(_table(sides, results))
    if preferred:
        console().print(_preferences(preferred, criteria, profile))
    console().print(escape(verdict.why))
    registry.log_comparison(profile_name, said, paths.COMPARISON)
    for alias, asked in ((SERVING, promote), (registry.CHAMPION, crown)):
        if asked and verdict.better and sides[1].address is not None:
            registry.point(alias, sides[1].address, verdict.why)
            sys.stdout.write(f"{alias} is {sides[1].address} now\n")
        elif asked:
            sys.stdout.write(f"{alias} stays where it was\n")


@dataclass(frozen=True)
class Verdict:
    """What the rule says, and why."""

    better: bool
    why: str


def judge(first: Result, second: Result, slack: float) -> Verdict:
    """Apply the rule of this module to what was measured."""
    assert second.difference is not None  # it was compared with the first
    gap = second.difference
    reasons = [
        f"#A_neg(B) - #A_neg(A) is {gap.estimate:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] over "
        f"{gap.count} pictures of {second.captions} captions, which "
        f"{'lies' if gap.high < 0 else 'does not lie'} below zero"
    ]
    kept = True
    if first.fid is None or second.fid is None:
        kept = False
        reasons.append(
            "FID was not measured, which the rule asks for: with fewer than two pictures, or "
            "without its network, which `atelier weights` shows how to fetch, there is none"
        )
    else:
        mine, theirs = second.fid.fid, first.fid.fid
        kept = mine <= (1 + slack) * theirs
        reasons.append(
            f"B's FID, {mine:.2f}, is {'within' if kept else 'more than'} {slack:.0%} of A's, "
            f"{theirs:.2f}"
        )
    better = gap.high < 0 and kept
    return Verdict(
        better, f"B is {'' if better else 'not '}better: " + "; ".join(reasons) + "."
    )


def _side(name: str, profile_name: str, profile: Profile) -> Side:
    base = profile.model
    if name == "base":
        return Side(name, None, None)
    if (brought := weight_files.brought(Path(name))) is not None:
        return Side(Path(name).name, None, brought)
    address = registry.address(name, profile_name)
    if address is None and name == SERVING:
        return Side(f"base (nothing has the alias {SERVING} yet)", None, None)
    if address is None:
        raise ParamsError(
            f"{name} is not in the registry; it has {', '.join(registry.listed(profile_name))}"
            "; a LoRA that is a file or a folder is named by its path"
        )
    objective = profile.cpo.objectives.get(registry.known(address)[0])
    if objective is not None and objective.objective == "npo":
        raise ParamsError(
            f"{name} was trained by npo: it guides another model and paints nothing"
        )
    model, folder, guided = registry.fetch(address)
    if (model.source, model.revision) != (base.source, base.revision):
        raise ParamsError(
            f"{name} was trained on {model.source} at {model.revision}, the profile in force "
            f"has {base.source} at {base.revision}; models of two bases are not compared here"
        )
    return Side(name, address, folder, guided)


def _paint(
    sides: Sequence[Side], records: Sequence[Record], criteria: Tree, profile: Profile
) -> dict[str, list[Path]]:
    """Paint the records' captions with each; return the files, by A and B."""
    painter = loading.load(profile.model)
    for letter, one in _lettered(sides):
        if one.lora is not None:
            adapters.attach(painter, letter, one.lora)
    writer = Prompts(painter, criteria, profile.generate.seed)
    prompts = [writer.write(record, ()) for record in records]
    files: dict[str, list[Path]] = {}
    with progress.bar("compare", 2 * len(records), "pictures") as report:
        for letter, one in _lettered(sides):
            adapter = letter if one.lora is not None else None
            with adapters.use(painter.network, adapter):
                pictures = sampling.paint(
                    painter,
                    prompts,
                    captions.seeds(profile.generate.seed, len(records)),
                    candidates.how(profile).of(guided=one.guided),
                    pixels=profile.model.pixels,
                    batch_images=profile.generate.batch_images,
                    report=progress.after(len(files) * len(records), report),
                )
                files[letter] = []
                for index, picture in enumerate(pictures):
                    files[letter].append(paths.COMPARISON.parent / letter / f"{index:03}.png")
                    atomic.write(files[letter][-1], images.png(picture))
    return files


def _lettered(sides: Sequence[Side]) -> Iterator[tuple[str, Side]]:
    return zip("AB", sides, strict=True)


def _judged(
    sides: Sequence[Side],
    files: dict[str, list[Path]],
    criteria: Tree,
    profile: Profile,
) -> dict[str, Painted]:
    judge = painted_pictures.annotator(profile, criteria)
    painted: dict[str, Painted] = {}
    count = len(files["A"])
    with progress.bar("judge", 2 * count, "pictures") as report:
        for letter, _ in _lettered(sides):
            told = progress.after(len(painted) * count, report)
            said = painted_pictures.judge(judge, files[letter], told)
            pictures = [np.array(images.read(file, _NO_LIMIT)) for file in files[letter]]
            hashes = [images.sha256(file) for file in files[letter]]
            found = negatives.verdicts(said, hashes, judge.name)
            painted[letter] = Painted(images=pictures, found=found, second=None)
    return painted


def _preferred(
    files: Mapping[str, Sequence[Path]],
    examined: Sequence[Record],
    criteria: Tree,
    profile: Profile,
) -> dict[str, Preference]:
    """Which of the two pictures of each caption shows more, criterion by criterion."""
    judge = painted_pictures.annotator(profile, criteria)
    paths_of = list(criteria.leaves())
    pairs = list(zip(files["A"], files["B"], strict=True))
    with progress.bar("compare", len(pairs), "pairs") as report:
        said = judge.compare_many(pairs, paths_of, report)
    captions_of = [record.caption for record in examined]
    return comparison.preferences(said, captions_of, paths_of)


def _preferences(
    preferred: Mapping[str, Preference], criteria: Tree, profile: Profile
) -> Table:
    """The win rates, with a mark where the annotator's certificate has one."""
    judge = painted_pictures.annotator(profile, criteria)
    made = certificate.of(paths.CERTIFICATES, judge.name, criteria)
    marks = certificate.marks(made, list(preferred))
    title = "Both pictures seen by the annotator in both orders: how often B shows more"
    table = Table(title=title)
    table.add_column("criterion", no_wrap=True)
    for heading in ("B wins", "of", "ties", "contradictions", "certificate"):
        table.add_column(heading, justify="right")
    for path, one in preferred.items():
        wins = one.wins
        table.add_row(
            escape(path),
            "–"
            if wins is None
            else escape(f"{wins.estimate:.0%} [{wins.low:.0%}, {wins.high:.0%}]"),
            "0" if wins is None else str(wins.count),
            str(one.ties),
            str(one.contradictions),
            escape(marks.get(path, "none" if made is None else made.version)),
        )
    return table


def _measured(
    painted: Mapping[str, Painted],
    test: Sequence[Record],
    examined: Sequence[Record],
    profile: Profile,
) -> dict[str, Measured]:
    network = scoring.extractor(profile, scoring.survey(profile))
    real = None
    if network is not None:
        features = network.features(pictures.paintings(test, profile))
        real = Real(features, [not record.negative for record in test], learned=None)
    return {
        letter: comparison.measure(
            one.images,
            None if network is None else network.features(one.images),
            real,
            metrics=["fid", "kid"],
            captions=[record.caption for record in examined],
            extractor=None if network is None else network.name,
            seed=profile.generate.seed,
        )
        for letter, one in painted.items()
    }


def _said(
    sides: Sequence[Side], results: dict[str, Result], verdict: Verdict
) -> dict[str, Any]:
    rows = {
        letter: {
            "model": one.name,
            "address": one.address,
            "negatives": dataclasses.asdict(results[letter].attributes.negatives),
            "fid": _plain(results[letter].fid),
        }
        for letter, one in _lettered(sides)
    }
    assert results["B"].difference is not None
    return {
        **rows,
        "captions": results["B"].captions,
        "difference": dataclasses.asdict(results["B"].difference),
        "better": verdict.better,
        "why": verdict.why,
    }


def _plain(distance: Distance | None) -> dict[str, Any] | None:
    return None if distance is None else dataclasses.asdict(distance)


def _table(sides: Sequence[Side], results: dict[str, Result]) -> Table:
    over = f"{results['A'].attributes.negatives.count} pictures of {results['A'].captions}"
    table = Table(title=f"The same {over} captions and noise, one annotator; lower is better")
    for heading in ("", "model", "#A_neg", "B - A, paired", "FID"):
        table.add_column(heading, overflow="fold")
    for letter, one in _lettered(sides):
        result = results[letter]
        count, gap = result.attributes.negatives, result.difference
        table.add_row(
            letter,
            one.name if one.address is None else f"{one.name} ({one.address})",
            escape(f"{count.estimate:.2f} [{count.low:.2f}, {count.high:.2f}]"),
            ""
            if gap is None
            else escape(f"{gap.estimate:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"),
            "–" if result.fid is None else f"{result.fid.fid:.2f}",
        )
    return table
