"""``atelier survey make NAME``: draws a study from generated pictures."""

import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier import atomic, images
from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Branch, Criterion, Tree
from atelier.errors import ParamsError
from survey import files, painters
from survey.files import Asked, Definition, Dimension, Key, Shown, Study
from survey.method import design
from survey.method.design import Picture, Plan, Sheet
from tasks.run import paths
from tasks.tracking import mlflow_runs

_NO_LIMIT = 2**31  # pixels; these pictures are our own


def run(profile: Profile, name: str) -> None:
    """Draw the study ``name`` by ``survey:`` of the profile, and write its folder whole.

    Pictures are copied under random names, from their pixels alone, so that neither name, date
    nor metadata of a file tells who painted it.

    Raises:
        ParamsError: The name is taken, or the profile asks for what is not there.
        ArtifactError: Nothing was evaluated yet, or not with these painters.
    """
    target = files.folder(name)
    if target.exists():
        raise ParamsError(
            f"{target} exists, and people may have voted on it; use another name, or remove "
            "that folder if no person was invited"
        )
    criteria = tree.parse(paths.JUDGED_BY)
    records = painters.records(profile)
    if profile.survey.pairs > len(records):
        raise ParamsError(
            f"survey.pairs should be at most {len(records)}, the number of generated captions "
            f"(generate.prompts), got {profile.survey.pairs}"
        )
    partial = target.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with atomic.clear_disk_errors(target):
        found = painters.of(profile, records, criteria, partial / "painted")
        write(partial, name, profile, criteria, records, found)
        shutil.rmtree(partial / "painted", ignore_errors=True)
        partial.rename(target)
    sys.stdout.write(_said(files.study(name)))


def write(
    folder: Path,
    name: str,
    profile: Profile,
    criteria: Tree,
    records: Sequence[Record],
    found: Sequence[painters.Source],
) -> None:
    """Write pictures, study.json and key.json of the study ``name`` into ``folder``."""
    wanted = profile.survey
    plan = Plan(
        painters=[one.painter.name for one in found],
        prompts=len(records),
        dimensions=criteria.roots(),
        pairs=wanted.pairs,
        raters=wanted.raters,
        pairs_each=wanted.pairs_each,
        checks=wanted.checks,
        repeats=wanted.repeats,
        seed=wanted.seed,
    )
    drawn = {group: design.sheets(plan, place) for place, group in enumerate(wanted.groups)}
    folders = {one.painter.name: one.folder for one in found}
    names, shown = _copied(drawn, folders, folder / "pictures", wanted.seed)
    study = Study(
        name=name,
        contact=wanted.contact,
        dimensions=[_dimension(criteria, root) for root in criteria.roots()],
        captions=[record.caption for record in records],
        pictures=sorted(shown),
        raters=wanted.raters,
        sheets={
            group: [
                [
                    Asked(
                        left=names[question.left],
                        right=names[question.right],
                        dimension=question.dimension,
                        caption=question.left.prompt,
                    )
                    for question in sheet
                ]
                for sheet in sheets
            ]
            for group, sheets in drawn.items()
        },
    )
    atomic.write(folder / "study.json", study.model_dump_json(indent=1) + "\n")
    key = Key(
        study=images.sha256(folder / "study.json"),
        painters=[one.painter for one in found],
        pictures=shown,
        checks_passed=wanted.checks_passed,
        seed=wanted.seed,
        made=mlflow_runs.provenance(),
    )
    atomic.write(folder / "key.json", key.model_dump_json(indent=1) + "\n")


def _copied(
    drawn: dict[str, list[Sheet]], folders: dict[str, Path], target: Path, seed: int
) -> tuple[dict[Picture, str], dict[str, Shown]]:
    """Copy every picture of the questions; return new names, and the source of each."""
    asked = {
        side
        for sheets in drawn.values()
        for sheet in sheets
        for question in sheet
        for side in (question.left, question.right)
    }
    names: dict[Picture, str] = {}
    shown: dict[str, Shown] = {}
    ordered = sorted(asked, key=lambda one: (one.painter, one.prompt, one.ruined))
    for number, picture in enumerate(ordered):
        source = folders[picture.painter] / f"{picture.prompt:03}.png"
        pixels = np.array(images.read(source, _NO_LIMIT))
        if picture.ruined:
            pixels = design.ruin(pixels, seed + number)
        # Names are random: names derived from the seed would reveal the models.
        name = f"{secrets.token_hex(16)}.png"
        atomic.write(target / name, images.png(pixels))
        names[picture] = name
        shown[name] = Shown(
            painter=picture.painter,
            prompt=picture.prompt,
            ruined=picture.ruined,
            sha256=images.sha256(source),
        )
    return names, dict(sorted(shown.items()))


def _dimension(criteria: Tree, root: str) -> Dimension:
    node = criteria.criteria[root]
    if isinstance(node, Branch):
        name, about = node.name, node.about
    else:
        name, about = root, f"{node.positive} / {node.negative}"
    leaves = [leaf for path, leaf in criteria.leaves().items() if path.split("/")[0] == root]
    return Dimension(
        key=root, name=name, about=about, criteria=[_definition(one) for one in leaves]
    )


def _definition(leaf: Criterion) -> Definition:
    return Definition(
        positive=leaf.positive,
        positive_means=leaf.positive_means,
        negative=leaf.negative,
        negative_means=leaf.negative_means,
    )


def _said(study: Study) -> str:
    lines = [
        f"study {study.name}: {len(study.pictures)} pictures along "
        f"{len(study.dimensions)} dimensions, in {files.folder(study.name)}"
    ]
    for group, sheets in study.sheets.items():
        longest = max(map(len, sheets))
        lines.append(
            f"  {group}: {len(sheets)} people answer up to {longest} questions each, then "
            f"{study.raters} of them have seen each pair"
        )
    group, sheets = next(iter(study.sheets.items()))
    lines.append(
        f"next: atelier survey invite {study.name} --group {group} --count {len(sheets)}"
    )
    return "\n".join(lines) + "\n"
