"""Stage ``sft``: fine-tunes the base on captions with attributes; the result is θ1."""

import json
from pathlib import Path

from atelier import atomic
from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.models import adapters, loading, lora_start
from atelier.models.costs.utilization import Utilization
from atelier.objectives import denoising
from atelier.training import ranks
from tasks import code
from tasks.run import paths, progress, resume, split_parts
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import encoded_dataset, keys, trainer
from tasks.training.prompts import Prompts
from tasks.training.validation_images import Grids

_ADAPTER = "theta1"


def run(profile: Profile, tracked: StageRun) -> None:
    """Train θ1 on ``c = y ∪ A_pos ∪ A_neg`` by ordinary denoising.

    Reads ``paths.SPLIT`` and the pictures; writes a LoRA or full weights, their curve and
    metrics under ``paths.SFT``.

    Raises:
        ArtifactError: An input is absent, or belongs to another base model.
    """
    together = ranks.join()
    params = profile.sft
    trainer.check(together, profile.model, params.training, params.lora)
    records = split_parts.read("train", "sft")
    criteria = tree.parse(paths.JUDGED_BY)
    painter = loading.load(profile.model)
    prompts = Prompts(painter, criteria, params.training.seed)
    labelled = [
        prompts.labelled(record, params.prompt_variants, params.attribute_dropout)
        for record in records
    ]
    grids = Grids(painter, params.training.grids, profile.model.pixels)
    roles = {"labelled": labelled, **grids.roles()}
    encoded = encoded_dataset.encode(painter, records, roles, profile, begun=tracked.begin)
    adapters.add(painter.network, _ADAPTER, params.lora, seed=params.training.seed)
    if params.init != "base":
        progress.say(lora_start.begin(painter, _ADAPTER, Path(params.init), "sft"))
    work = resume.folder(
        "sft",
        params,
        profile.model,
        paths.SPLIT / "train.jsonl",
        paths.JUDGED_BY,
        keys.base(profile),
        *keys.origin(params.init),
        json.dumps(code.now("sft")),
    )
    with adapters.learning(painter.network, _ADAPTER):
        curve = trainer.teach(
            "sft",
            painter,
            adapters.weights(painter.network, _ADAPTER),
            denoising.step(
                painter,
                encoded,
                params.training,
                role="labelled",
                caption_dropout=params.caption_dropout,
                weighting=params.weighting,
            ),
            learning_rate=params.learning_rate,
            params=params.training,
            work=work,
            tracked=tracked,
            ranks=together,
            look=lambda done: grids.look("sft", encoded, done, tracked),
            needed=Utilization(profile.model, params.lora, params.training, 1, 0),
        )
    if not together.first:
        return
    adapters.save(painter, _ADAPTER, paths.SFT)
    curve.write(paths.SFT / "curve.tsv")
    metrics = {"images": len(records), **prompts.tally(), "loss": curve.last()["loss"]}
    atomic.write(paths.SFT / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    tracked.metrics(metrics)
    tracked.file(paths.SFT / "curve.tsv")
    resume.done(work)
