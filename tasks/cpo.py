"""Stage ``cpo``: Complex Preference Optimization; each objective's result is a θ."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from atelier import atomic
from atelier.config.objectives import Objective
from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.models import adapters, loading, lora_start
from atelier.models.costs.utilization import Utilization
from atelier.models.denoiser import Denoiser
from atelier.objectives.objective import Setup
from atelier.training import drift, ranks
from atelier.training.corpus import Corpus
from atelier.training.ranks import Ranks
from tasks.run import kept, paths, progress, resume, split_parts
from tasks.tracking import registry
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import encoded_dataset, materials, objective_keys, trainer
from tasks.training.prompts import Prompts
from tasks.training.validation_images import Grids

_TEACHER = "theta1"


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
    params = profile.cpo
    if not params.objectives:
        return
    full_teacher = adapters.file(paths.SFT).name == adapters.FULL
    trainer.check(
        together, profile.model, params.training, params.lora, full_teacher=full_teacher
    )
    records = split_parts.read("train", "cpo")
    criteria = tree.parse(paths.JUDGED_BY)
    painter = loading.load(profile.model)
    prompts = Prompts(painter, criteria, params.training.seed)
    grids = Grids(painter, params.training.grids, profile.model.pixels)
    paired = materials.paired(records, profile)
    roles = materials.roles(records, prompts, profile, paired) | grids.roles()
    judge = materials.judge(profile, criteria)
    codec = painter.parts().vae if judge is not None else None
    texts = any(one.needs_texts for one in params.objectives.values())
    encoded = encoded_dataset.encode(
        painter, records, roles, profile, keep_texts=texts, begun=tracked.begin
    )
    if judge is not None:
        painter.parts().register_modules(vae=codec)
    adapters.attach(painter, _TEACHER, paths.SFT)
    targets = materials.targets(profile)
    for name, objective in params.objectives.items():
        corpus, pairs = encoded, None
        counts: dict[str, float] = {}
        contrasts = objective.contrasts()
        if contrasts is not None:
            corpus, counts = materials.contrasted(name, contrasts, encoded, records, criteria)
        if paired is not None and objective.needs_pairs:
            pairs, counts = materials.of_one_size(paired, encoded)
        adapters.add(painter.network, name, params.lora, seed=params.training.seed)
        if objective.init == "sft":
            adapters.copy(painter.network, _TEACHER, name)
        elif objective.init != "base":
            progress.say(lora_start.begin(painter, name, Path(objective.init), "cpo"))
        describe = None
        if contrasts is not None and objective.needs_texts:
            own_tally = dataclasses.replace(prompts)
            describe = materials.describe(
                criteria, records, encoded, own_tally, contrasts.winner
            )
        setup = Setup(
            painter, corpus, params.training, _TEACHER, name, params.caption_dropout,
            pairs=pairs, judge=judge, describe=describe,
            negatives=materials.negatives(records), targets=targets,
        )  # fmt: skip
        with tracked.part(name, registry.trained_by(name, profile), paths.CPO / name) as own:
            metrics = _align(
                name, objective, setup, painter, encoded, profile, own,
                together, grids, work=resume.folder(f"cpo-{name}", made_of[name]),
            )  # fmt: skip
            metrics |= prompts.tally() | counts
            own.metrics(metrics)
        if not together.first:
            continue
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
        progress.say(f"{name}: unchanged, kept")
        metrics = json.loads((paths.CPO / name / "metrics.json").read_text(encoding="utf-8"))
        tracked.metrics({f"{name}/{key}": value for key, value in metrics.items()})
    wanted = {name: one for name, one in profile.cpo.objectives.items() if name not in found}
    return profile.model_copy(
        update={"cpo": profile.cpo.model_copy(update={"objectives": wanted})}
    )


def _align(
    name: str,
    objective: Objective,
    setup: Setup,
    painter: Denoiser,
    encoded: Corpus,
    profile: Profile,
    tracked: StageRun,
    together: Ranks,
    grids: Grids,
    *,
    work: Path,
) -> dict[str, float]:
    """Train one θ, or take the rest of its way; return what the monitor said last."""
    params = profile.cpo
    passes = objective.passes(params.training.batch_images)
    needed = Utilization(
        profile.model, params.lora, params.training, passes.policy, passes.frozen
    )

    def look(done: int) -> None:
        if done in objective.milestones and together.first:
            adapters.save(painter, name, paths.milestone(work, done))
        grids.look(
            name, encoded, done, tracked, guided=not objective.sampled_without_guidance()
        )

    with adapters.learning(painter.network, name):
        curve = trainer.teach(
            name,
            painter,
            adapters.weights(painter.network, name),
            objective.step(setup),
            learning_rate=objective.learning_rate,
            params=params.training,
            work=work,
            tracked=tracked,
            ranks=together,
            beside=setup.state,
            look=look,
            needed=None if setup.targets else needed,  # passes that are read are not made
        )
    if not together.first:
        return {}
    adapters.save(painter, name, paths.CPO / name)
    for done in objective.milestones:
        atomic.copy_tree(paths.milestone(work, done), paths.milestone(paths.CPO / name, done))
    curve.write(paths.CPO / name / "curve.tsv")
    tracked.file(paths.CPO / name / "curve.tsv")
    last = curve.last()
    return {
        key: last[key]
        for key in ("loss", "accuracy", "drift", "win_error", "lose_error")
        if key in last
    } | {"drifting": float(drift.drifted(curve.rows()))}
