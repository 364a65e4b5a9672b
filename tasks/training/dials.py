"""Dials: for each root of the criteria a small LoRA that moves that root alone, and adds up.

A dial learns what θ1 tells apart between the good and the bad poles of one root, in the
pictures in which the root matters (``atelier.objectives.slider``). Its share is free: 1 is a
whole turn towards the good poles, -1 one away from them, and several dials are added to any
model on the same base.
"""

from collections.abc import Sequence
from pathlib import Path

from atelier.config.profile import Profile
from atelier.config.training import LoRA, Training
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError
from atelier.models import adapters, loading
from atelier.models.files import weight_files
from atelier.objectives.objective import Setup
from atelier.objectives.slider import Slider
from atelier.training import ranks
from tasks import code
from tasks.run import kept, paths, progress, resume, split_parts
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import encoded_dataset, keys, materials, trainer
from tasks.training.prompts import Prompts

_TEACHER = "theta1"
FEWEST = 8  # pictures in which a root matters, for its dial to be trained
SLIDER = Slider(
    objective="slider",
    eta=3.0,
    winner="flipped",
    teacher="sft",
    confidence="ignored",
    weighting="constant",
    learning_rate=0.001,
)
RANK = 8


def train(profile: Profile, roots: Sequence[str], steps: int) -> None:
    """Train the dials that are not there yet, each under ``paths.DIALS``.

    Reads ``paths.SPLIT``, ``paths.SFT`` and the pictures.

    Raises:
        ArtifactError: An input is absent, or no picture shows anything of a root.
        ParamsError: θ1 is full weights of which dials cannot learn here.
    """
    training = _training(profile, steps)
    criteria = tree.parse(paths.JUDGED_BY)
    every = _keys(profile, criteria.roots(), training)
    found = kept.take(paths.DIALS, every)
    absent = [root for root in roots if root not in found]
    for root in (one for one in roots if one in found):
        progress.say(f"dial {root}: unchanged, kept")
    if not absent:
        return
    together = ranks.join()
    trainer.check(together, profile.model, training, _lora())
    records = split_parts.read("train", "dials")
    painter = loading.load(profile.model)
    prompts = Prompts(painter, criteria, training.seed)
    roles = {"caption": [[prompts.write(one, ())] for one in records]}
    for root in absent:
        narrow = narrowed(records, root)
        roles[f"{root} winner"] = [[prompts.flipped(one)] for one in narrow]
        roles[f"{root} loser"] = [[prompts.bad(one)] for one in narrow]
    encoded = encoded_dataset.encode(painter, records, roles, profile)
    adapters.attach(painter, _TEACHER, paths.SFT)
    for root in absent:
        corpus, _ = materials.contrasted(root, SLIDER.contrasts(), encoded, records, criteria)
        adapters.add(painter.network, root, _lora(), seed=training.seed)
        setup = Setup(painter, corpus, training, _TEACHER, root, profile.cpo.caption_dropout)
        with adapters.learning(painter.network, root):
            curve = trainer.teach(
                f"dial {root}",
                painter,
                adapters.weights(painter.network, root),
                SLIDER.step(setup),
                learning_rate=SLIDER.learning_rate,
                params=training,
                work=resume.folder(f"dial-{root}", every[root]),
                tracked=StageRun(),
                ranks=together,
                beside=setup.state,
            )
        adapters.save(painter, root, paths.DIALS / root)
        curve.write(paths.DIALS / root / "curve.tsv")
        kept.seal(paths.DIALS / root, every[root])
        resume.done(resume.folder(f"dial-{root}", every[root]))


def narrowed(records: Sequence[Record], root: str) -> list[Record]:
    """Return the pictures with the active criteria of one root and no other.

    All of them stand at the bad pole: the winner turns each to its good one, so that a dial
    learns of every criterion both sides. A picture without any holds the dial where it is.

    Raises:
        ArtifactError: Too few pictures show anything of the root.
    """
    found = [
        one.model_copy(
            update={
                "positive": [],
                "negative": [
                    path
                    for path in (*one.positive, *one.negative)
                    if path.partition("/")[0] == root
                ],
            }
        )
        for one in records
    ]
    count = sum(bool(one.negative) for one in found)
    if count < FEWEST:
        raise ArtifactError(
            f"{count} training pictures show anything of {root!r}, a dial needs {FEWEST}; "
            "name other roots with --root, or judge more pictures"
        )
    return found


def folder(root: str) -> Path:
    """Return where the dial of a root lies.

    Raises:
        ParamsError: It was not trained.
    """
    place = paths.DIALS / root
    if not (place / weight_files.FILE).is_file():
        raise ParamsError(
            f"there is no dial for {root!r} yet; `atelier dials` trains one for each root of "
            "the criteria"
        )
    return place


def _training(profile: Profile, steps: int) -> Training:
    """The settings of the stage cpo, with fewer steps."""
    changed = {"steps": steps, "grids": None, "ema_decay": None, "report_steps": 5}
    return profile.cpo.training.model_copy(update=changed)


def _lora() -> LoRA:
    return LoRA(
        rank=RANK, alpha=RANK, rslora=False, dora=False, dropout=0, targets="all-linear"
    )


def _keys(profile: Profile, roots: Sequence[str], training: Training) -> dict[str, str]:
    if not weight_files.file(paths.SFT).is_file():
        raise ArtifactError(f"{weight_files.file(paths.SFT)} is absent; run `dvc repro sft`")
    made_of = resume.key(
        SLIDER,
        _lora(),
        training,
        profile.model,
        f"{profile.cpo.caption_dropout}",
        paths.SPLIT / "train.jsonl",
        weight_files.file(paths.SFT),
        paths.JUDGED_BY,
        keys.base(profile),
        code.packages().hash_of("tasks.training.dials"),
    )
    return {root: resume.key(root, made_of) for root in roots}
