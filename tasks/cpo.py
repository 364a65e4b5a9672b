"""Stage ``cpo``: Complex Preference Optimization; each objective's result is a θ."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from atelier import atomic
from atelier.annotators import measured
from atelier.config.objectives import (
    CPO,
    CPOS,
    SPO,
    Objective,
    Pairwise,
    TablePairs,
    TeacherTaught,
)
from atelier.config.profile import Profile
from atelier.criteria import annotations, pairs, tree
from atelier.criteria.annotations import Record
from atelier.criteria.pairs import Paired
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, loading, sampling
from atelier.models.denoiser import Denoiser
from atelier.objectives import steps
from atelier.training import drift, loop, ranks
from atelier.training.ranks import Ranks
from tasks.run import kept, paths, resume
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import encoded_dataset, objective_keys, trainer
from tasks.training.prompts import Prompts
from tasks.training.validation_images import Grids

_TEACHER = "theta1"
_ENDS = ("win", "lose")


def run(profile: Profile, tracked: StageRun) -> None:
    """Align the base model with the targets that θ1 gives, once for each objective.

    Reads ``paths.SPLIT``, ``paths.SFT`` and the pictures; writes a LoRA, or full weights,
    with their curve and metrics for each objective under ``paths.CPO``.

    Raises:
        ArtifactError: An input is absent, or belongs to another base model.
    """
    together = ranks.join()
    made_of = objective_keys.of(profile)
    profile = _without_kept(profile, made_of, together, tracked)
    if not profile.cpo.objectives:
        return
    full_teacher = adapters.file(paths.SFT).name == adapters.FULL
    trainer.check(
        together,
        profile.model,
        profile.cpo.training,
        profile.cpo.lora,
        full_teacher=full_teacher,
    )
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    criteria = tree.parse(paths.JUDGED_BY)
    painter = loading.load(profile.model)
    adapters.attach(painter, _TEACHER, paths.SFT)
    prompts = Prompts(painter, criteria, profile.cpo.training.seed)
    grids = Grids(painter, profile.cpo.training.grids, profile.model.pixels)
    paired = _paired(records, profile)
    roles = {
        "caption": [[prompts.write(record, ())] for record in records],
        "labelled": [[prompts.good(record)] for record in records],
        "flipped": [[prompts.flipped(record)] for record in records],
        "loser": [[prompts.bad(record)] for record in records],
        **grids.roles(),
    }
    for name, objective in profile.cpo.objectives.items():
        roles |= _own_contrasts(name, objective, records, prompts, profile)
    if paired is not None:
        roles["pair"] = [
            [prompts.write(records[pair.win].model_copy(update={"caption": pair.caption}), ())]
            for pair in paired.pairs
        ]
    judge = _judge(profile, criteria)
    codec = painter.pipeline().vae if judge is not None else None
    encoded = encoded_dataset.encode(painter, records, roles, profile)
    if judge is not None:
        painter.pipeline().register_modules(vae=codec)
    for name, objective in profile.cpo.objectives.items():
        if isinstance(objective, Pairwise):
            assert paired is not None  # params see to it
            made, counts = _of_one_size(paired, encoded)
            step = steps.pairwise_preference(
                painter, encoded, made, objective, profile.cpo.training,
                policy=name, caption_dropout=profile.cpo.caption_dropout,
            )  # fmt: skip
        elif isinstance(objective, SPO):
            assert judge is not None
            counts = {}
            step = steps.stepwise_preference(
                painter, encoded, objective, profile.cpo.training, judge,
                policy=name, caption_dropout=profile.cpo.caption_dropout,
            )  # fmt: skip
        else:
            own = _with_contrasts(name, objective, encoded, records, criteria)
            counts = _counts(records)
            step = steps.complex_preference(
                painter, own, objective, profile.cpo.training,
                teacher=_TEACHER, policy=name, caption_dropout=profile.cpo.caption_dropout,
            )  # fmt: skip
        metrics = _align(
            name, objective, step, painter, encoded, profile, tracked, together, grids,
            work=resume.folder(f"cpo-{name}", made_of[name]),
        )  # fmt: skip
        if not together.first:
            continue
        metrics |= prompts.tally() | counts
        atomic.write(paths.CPO / name / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        tracked.metrics({f"{name}/{key}": value for key, value in metrics.items()})
        kept.seal(paths.CPO / name, made_of[name])
    if not together.first:
        return
    for name, key in made_of.items():
        resume.done(resume.folder(f"cpo-{name}", key))


def _without_kept(
    profile: Profile, made_of: Mapping[str, str], together: Ranks, tracked: StageRun
) -> Profile:
    """Keep the θs that are made of the same; return the profile with the other objectives."""
    found = kept.take(paths.CPO, made_of) if together.first else set()
    found = together.gather(found)[0]
    for name in sorted(found) if together.first else ():
        metrics = json.loads((paths.CPO / name / "metrics.json").read_text(encoding="utf-8"))
        tracked.metrics({f"{name}/{key}": value for key, value in metrics.items()})
    wanted = {name: one for name, one in profile.cpo.objectives.items() if name not in found}
    return profile.model_copy(
        update={"cpo": profile.cpo.model_copy(update={"objectives": wanted})}
    )


def _judge(profile: Profile, criteria: Tree) -> steps.Judge | None:
    """Who judges what the policy is about to paint, where an objective asks."""
    if not any(isinstance(one, SPO) for one in profile.cpo.objectives.values()):
        return None
    if profile.annotate.annotator != "measured":
        raise ParamsError(
            "cpo.objectives: spo-measured judges thousands of pictures in training, which only "
            f"annotate.annotator 'measured' can, not {profile.annotate.annotator!r}"
        )

    def negatives(pixels: torch.Tensor) -> torch.Tensor:
        pictures = sampling.to_bytes(pixels)
        said = [measured.judge(picture, criteria) for picture in pictures]
        return torch.tensor([sum(pole == "negative" for _, pole, _ in row) for row in said])

    return negatives


def _paired(records: Sequence[Record], profile: Profile) -> Paired | None:
    """The pairs of pictures, where an objective learns from any."""
    params = profile.cpo.pairs
    objectives = profile.cpo.objectives.values()
    if params is None or not any(isinstance(one, Pairwise) for one in objectives):
        return None
    if isinstance(params, TablePairs):
        return pairs.from_table(paths.DATA / params.table, records, paths.DATA)
    return pairs.from_annotations(records, params)


def _of_one_size(paired: Paired, encoded: steps.Corpus) -> tuple[steps.Pairs, dict[str, float]]:
    """The pairs as rows of the corpus; two pictures of different sizes share no noise."""
    size = torch.zeros(len(encoded.latents), dtype=torch.long)
    for number, rows in enumerate(encoded.buckets or ()):
        size[rows] = number
    win, lose = (torch.tensor([getattr(p, end) for p in paired.pairs]) for end in _ENDS)
    same = size[win] == size[lose]
    if not same.any():
        raise ArtifactError(
            f"none of {len(same)} pairs has two pictures of one size; bring others "
            "(docs/pairs.md), or set model.buckets to null"
        )
    sizes = size[win[same]]
    made = steps.Pairs(
        win=win[same],
        lose=lose[same],
        prompts=encoded.rows["pair"][same, 0],
        weights=torch.tensor([pair.weight for pair in paired.pairs])[same],
        buckets=None
        if encoded.buckets is None
        else [(sizes == one).nonzero()[:, 0] for one in sorted(set(sizes.tolist()))],
    )
    return made, paired.counts | {"pairs_of_two_sizes": float((~same).sum())}


def _own_contrasts(
    name: str,
    objective: Objective,
    records: Sequence[Record],
    prompts: Prompts,
    profile: Profile,
) -> dict[str, list[list[str]]]:
    """Prompts of an objective that does not contrast all good attributes with all bad ones."""
    draws, by_root = _contrasting(objective)
    if isinstance(objective, Pairwise | SPO) or not (draws or by_root):
        return {}
    roots = prompts.tree.roots() if by_root else None
    found = [
        prompts.contrasts(
            record,
            objective.winner,
            draws=profile.cpo.attribute_draws if draws else None,
            roots=roots,
        )
        for record in records
    ]
    return {
        f"{name} winner": [[good for good, _ in one] for one in found],
        f"{name} loser": [[bad for _, bad in one] for one in found],
    }


def _contrasting(objective: Objective) -> tuple[bool, bool]:
    """Whether an objective draws attributes by confidence, and whether it goes by root."""
    draws = isinstance(objective, CPO | CPOS) and objective.confidence == "weighs"
    return draws, isinstance(objective, CPOS) and isinstance(objective.omega, dict)


def _with_contrasts(
    name: str,
    objective: TeacherTaught,
    encoded: steps.Corpus,
    records: Sequence[Record],
    criteria: Tree,
) -> steps.Corpus:
    """The corpus with this objective's winners and losers, and their strengths by root."""
    rows = dict(encoded.rows)
    own = f"{name} winner" in rows
    rows["winner"] = rows[f"{name} winner" if own else objective.winner]
    rows["loser"] = rows[f"{name} loser" if own else "loser"]
    if not (isinstance(objective, CPOS) and isinstance(objective.omega, dict)):
        return dataclasses.replace(encoded, rows=rows)
    roots = criteria.roots()
    if set(objective.omega) != set(roots):
        raise ParamsError(
            f"cpo.objectives.{name}.omega should name every root of the criteria "
            f"({', '.join(roots)}) and no other, names {', '.join(objective.omega)}"
        )
    strengths = torch.tensor([objective.omega[root] for root in roots])
    draws = rows["winner"].shape[1] // len(roots)
    active = torch.tensor([[_is_bad(one, root) for root in roots] for one in records]).sum(1)
    # A step draws one active root of n: n times its strength is, on average, all of them.
    omegas = strengths.repeat(draws) * active.clamp(min=1)[:, None]
    return dataclasses.replace(encoded, rows=rows, omegas=omegas)


def _is_bad(record: Record, root: str) -> bool:
    return any(path.partition("/")[0] == root for path in record.negative)


def _counts(records: Sequence[Record]) -> dict[str, float]:
    """How many images have nothing at a pole, and so no winner or no loser."""
    return {
        "empty_positive": float(sum(not record.positive for record in records)),
        "empty_negative": float(sum(not record.negative for record in records)),
    }


def _align(
    name: str,
    objective: Objective,
    step: loop.Step,
    painter: Denoiser,
    encoded: steps.Corpus,
    profile: Profile,
    tracked: StageRun,
    together: Ranks,
    grids: Grids,
    *,
    work: Path,
) -> dict[str, float]:
    """Train one θ, or take the rest of its way; return what the monitor said last."""
    params = profile.cpo
    adapters.add(painter.network, name, params.lora, seed=params.training.seed)
    with adapters.learning(painter.network, name):
        curve = trainer.teach(
            name,
            painter,
            adapters.weights(painter.network, name),
            step,
            learning_rate=objective.learning_rate,
            params=params.training,
            work=work,
            tracked=tracked,
            ranks=together,
            curve_name=name,
            look=lambda done: grids.look(name, encoded, done, tracked),
        )
    if not together.first:
        return {}
    adapters.save(painter, name, paths.CPO / name)
    curve.write(paths.CPO / name / "curve.tsv")
    tracked.file(paths.CPO / name / "curve.tsv")
    last = curve.last()
    return {
        key: last[key]
        for key in ("loss", "accuracy", "drift", "win_error", "lose_error")
        if key in last
    } | {"drifting": float(drift.drifted(curve.rows()))}
