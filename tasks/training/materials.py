"""Inputs of objectives: contrasts of prompts, pairs of pictures, a judge."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import torch

from atelier.config.objectives import Objective
from atelier.config.pairs import TablePairs
from atelier.config.profile import Profile
from atelier.criteria import pairs
from atelier.criteria.annotations import Record
from atelier.criteria.pairs import Paired
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError, ParamsError
from atelier.models import sampling
from atelier.models.files import weight_files
from atelier.objectives.objective import Contrasts, Describe, Described, Judge, Winner
from atelier.training import checkpoints
from atelier.training.corpus import Corpus, Pairs
from atelier.training.target_cache import TargetCache
from tasks import code
from tasks.run import paths, resume
from tasks.training import keys
from tasks.training.prompts import Prompts

_ENDS = ("win", "lose")


def roles(
    records: Sequence[Record], prompts: Prompts, profile: Profile, paired: Paired | None
) -> dict[str, list[list[str]]]:
    """Return the prompts of each image by their role, for all objectives together."""
    found = {
        "caption": [[prompts.write(record, ())] for record in records],
        "labelled": [[prompts.good(record)] for record in records],
        "flipped": [[prompts.flipped(record)] for record in records],
        "loser": [[prompts.bad(record)] for record in records],
    }
    # With a tally of their own: what is said of one objective depends on no other.
    more = dataclasses.replace(prompts)
    for name, objective in profile.cpo.objectives.items():
        found |= _own_contrasts(name, objective, records, more, profile)
    if paired is not None:
        found["pair"] = [
            [more.write(records[pair.win].model_copy(update={"caption": pair.caption}), ())]
            for pair in paired.pairs
        ]
    return found


def judge(profile: Profile, criteria: Tree) -> Judge | None:
    """Return what judges what the policy is about to paint, if an objective needs it.

    Raises:
        ParamsError: The profile's annotator cannot.
    """
    needing = [name for name, one in profile.cpo.objectives.items() if one.needs_judge]
    if not needing:
        return None
    if profile.annotate.annotator != "measured":
        raise ParamsError(
            f"cpo.objectives.{needing[0]} judges thousands of pictures in training, which only "
            f"annotate.annotator 'measured' can, not {profile.annotate.annotator!r}"
        )

    from atelier.annotators import measured  # here: most trainings ask no judge

    def negatives(pixels: torch.Tensor) -> torch.Tensor:
        pictures = sampling.to_bytes(pixels)
        said = [measured.judge(picture, criteria) for picture in pictures]
        return torch.tensor([sum(pole == "negative" for _, pole, _ in row) for row in said])

    return negatives


def targets(profile: Profile) -> TargetCache | None:
    """Return where targets of θ1 and the base are kept, if the profile keeps them.

    Everything that decides their passes names the folder, what a step draws names an entry.
    """
    params = profile.cpo
    if not params.keep_targets:
        return None
    training = params.training
    drawn = (training.seed, training.batch_images, training.offset_noise)
    passes = (training.precision, training.compile, checkpoints.kernels())
    key = resume.key(
        profile.model,
        keys.base(profile),
        weight_files.file(paths.SFT),
        training.times,
        json.dumps([drawn, passes, code.now("cpo")["common"]]),
    )
    return TargetCache(paths.CACHE / f"targets-{key[:16]}")


def describe(
    criteria: Tree,
    records: Sequence[Record],
    encoded: Corpus,
    prompts: Prompts,
    winner: Winner,
) -> Describe:
    """Return what writes the prompts of a painted picture, by its measured poles."""
    from atelier.annotators import measured

    captions = {
        int(row): record.caption
        for row, record in zip(encoded.rows["caption"][:, 0], records, strict=True)
    }

    def described(pixels: torch.Tensor, rows: torch.Tensor) -> Described:
        found = []
        pictures = sampling.to_bytes(pixels)
        for picture, row in zip(pictures, rows.tolist(), strict=True):
            poles: dict[str, list[str]] = {"positive": [], "negative": []}
            for path, pole, _ in measured.judge(picture, criteria):
                poles[pole].append(path)
            image = hashlib.sha256(picture.tobytes()).hexdigest()
            found.append(Record(image=image, file="", caption=captions[row], **poles))
        good = prompts.good if winner == "labelled" else prompts.flipped
        return Described(
            caption=[prompts.write(record, ()) for record in found],
            winner=[good(record) for record in found],
            loser=[prompts.bad(record) for record in found],
            negatives=negatives(found),
        )

    return described


def paired(records: Sequence[Record], profile: Profile) -> Paired | None:
    """Return the pairs of pictures, if an objective learns from any."""
    params = profile.cpo.pairs
    objectives = profile.cpo.objectives.values()
    if params is None or not any(one.needs_pairs for one in objectives):
        return None
    if isinstance(params, TablePairs):
        return pairs.from_table(paths.DATA / params.table, records, paths.DATA)
    return pairs.from_annotations(records, params)


def of_one_size(found: Paired, encoded: Corpus) -> tuple[Pairs, dict[str, float]]:
    """Return the pairs as rows of the corpus, and their counts.

    Two pictures of different sizes share no noise, so pairs of such are left out.

    Raises:
        ArtifactError: None is left.
    """
    size = torch.zeros(len(encoded.latents), dtype=torch.long)
    for number, rows in enumerate(encoded.buckets or ()):
        size[rows] = number
    win, lose = (torch.tensor([getattr(p, end) for p in found.pairs]) for end in _ENDS)
    same = size[win] == size[lose]
    if not same.any():
        raise ArtifactError(
            f"none of {len(same)} pairs has two pictures of one size; bring others "
            "(docs/pairs.md), or set model.buckets to null"
        )
    sizes = size[win[same]]
    made = Pairs(
        win=win[same],
        lose=lose[same],
        prompts=encoded.rows["pair"][same, 0],
        weights=torch.tensor([pair.weight for pair in found.pairs])[same],
        buckets=None
        if encoded.buckets is None
        else [(sizes == one).nonzero()[:, 0] for one in sorted(set(sizes.tolist()))],
    )
    return made, found.counts | {"pairs_of_two_sizes": float((~same).sum())}


def negatives(records: Sequence[Record]) -> torch.Tensor:
    """Return how many bad poles each image was judged to have, long ``[N]``."""
    return torch.tensor([len(record.negative) for record in records])


def contrasted(
    name: str,
    contrasts: Contrasts,
    encoded: Corpus,
    records: Sequence[Record],
    criteria: Tree,
) -> tuple[Corpus, dict[str, float]]:
    """Return the corpus with an objective's winners, losers and strengths, and counts.

    The counts are of images that have nothing at a pole, and so no winner or no loser.

    Raises:
        ParamsError: The strengths by root are not of the criteria's roots.
    """
    rows = dict(encoded.rows)
    own = f"{name} winner" in rows
    rows["winner"] = rows[f"{name} winner" if own else contrasts.winner]
    rows["loser"] = rows[f"{name} loser" if own else "loser"]
    counts = {
        "empty_positive": float(sum(not record.positive for record in records)),
        "empty_negative": float(sum(not record.negative for record in records)),
    }
    if contrasts.omegas is None:
        return dataclasses.replace(encoded, rows=rows), counts
    roots = criteria.roots()
    if set(contrasts.omegas) != set(roots):
        raise ParamsError(
            f"cpo.objectives.{name}.omega should name every root of the criteria "
            f"({', '.join(roots)}) and no other, names {', '.join(contrasts.omegas)}"
        )
    strengths = torch.tensor([contrasts.omegas[root] for root in roots])
    draws = rows["winner"].shape[1] // len(roots)
    active = torch.tensor([[_is_bad(one, root) for root in roots] for one in records]).sum(1)
    # A step draws one active root of n: n times its strength is, on average, all of them.
    omegas = strengths.repeat(draws) * active.clamp(min=1)[:, None]
    return dataclasses.replace(encoded, rows=rows, omegas=omegas), counts


def _own_contrasts(
    name: str,
    objective: Objective,
    records: Sequence[Record],
    prompts: Prompts,
    profile: Profile,
) -> dict[str, list[list[str]]]:
    """Prompts of an objective that does not contrast all good attributes with all bad ones."""
    contrasts = objective.contrasts()
    if contrasts is None or not (contrasts.by_confidence or contrasts.omegas):
        return {}
    roots = prompts.tree.roots() if contrasts.omegas else None
    draws = profile.cpo.attribute_draws if contrasts.by_confidence else None
    found = [
        prompts.contrasts(
            record,
            contrasts.winner,
            draws=draws,
            roots=roots,
            caption_wins=contrasts.caption_wins,
        )
        for record in records
    ]
    return {
        f"{name} winner": [[good for good, _ in one] for one in found],
        f"{name} loser": [[bad for _, bad in one] for one in found],
    }


def _is_bad(record: Record, root: str) -> bool:
    return any(path.partition("/")[0] == root for path in record.negative)
