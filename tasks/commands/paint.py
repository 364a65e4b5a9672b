"""``atelier generate``: images by several models, steered by criteria.

Criteria steer through words, on which θ1 was trained: a promoted criterion adds its good pole
to the prompt, a suppressed one adds its bad pole to the negative prompt of guidance. Both take
a leaf or a branch of the tree. With a number they turn a dial instead, a small LoRA of one root
(``tasks.training.dials``): ``--promote light=0.5`` adds half of it to every model,
``--suppress brushwork=1`` takes it off, which leads away from that root's good poles.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier import atomic, images
from atelier.config.model import ModelParams, public_name
from atelier.config.profile import Profile
from atelier.criteria import captions, tree
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError, ParamsError
from atelier.models.files import weight_files
from atelier.models.sampling_settings import Sampling
from atelier.reports import image_grids
from tasks.evaluation import candidates
from tasks.run import paths, progress, resume
from tasks.tracking import registry

if TYPE_CHECKING:
    from atelier.models.adapters import State
    from atelier.models.denoiser import Denoiser

DIAL = "dial-"  # before the root, in an adapter's name
MOST = 5.0  # whole turns of a dial
_BASE_INDEX = "model_index.json"  # every base has it


@dataclass(frozen=True)
class Wish:
    """What is to be painted, and how; None stands for what the stage generate does.

    Attributes:
        prompts: What is to be seen.
        models: Names of candidates, folders of LoRAs or bases, or ``models:/`` addresses; each
            with the name of its row before a ``=``, if it has one.
        promote: Criteria or branches whose good pole is asked for.
        suppress: Criteria or branches whose bad pole is led away from.
        seeds: Of the starting noise; each prompt is painted with each.
        steps: Sampling steps.
        guidance: Classifier-free guidance, of all models; None: of those that are guided,
            what the stage generate has, and none of the others.
        out: Folder for the grid, the pictures, and how they were made.
    """

    prompts: Sequence[str]
    models: Sequence[str]
    promote: Sequence[str]
    suppress: Sequence[str]
    seeds: Sequence[int]
    steps: int | None
    guidance: float | None
    out: Path


@dataclass(frozen=True)
class Model:
    """A base, and where the LoRA on it or full weights are; None for the bare base."""

    name: str
    base: ModelParams
    lora: Path | None  # a file, or a folder with one
    guided: bool = True  # False: it has learned what guidance adds, and is sampled without

    def identity(self) -> dict[str, str | None]:
        """Say which weights these are."""
        file = None if self.lora is None else weight_files.brought(self.lora)
        folder = Path(self.base.source)
        return {
            "base": f"{public_name(self.base)} at {self.base.revision}",
            "base_hash": resume.key(folder) if folder.is_dir() else None,
            "lora": None if file is None else images.sha256(file),
        }


def run(profile: Profile, wish: Wish) -> Path:
    """Paint every prompt with every model and seed; return the grid's file.

    Raises:
        ParamsError: A model or a criterion is unknown, or guidance is off and needed.
        ArtifactError: A model's weights are absent, or belong to another base.
    """
    criteria = tree.parse(_criteria(profile))
    chosen = _rows(wish.models, profile)
    sampled = {model.name: _how(model, wish, profile) for model in chosen}
    good, bad = _steered(wish, criteria, sampled)
    turned = turns(wish.promote, wish.suppress, criteria)
    from atelier.models import adapters, sampling  # all that a person mistypes was refused
    from tasks.training import dials

    turned_by = {root: dials.folder(root) for root in turned}
    prompts = [captions.join(prompt, good) for prompt in wish.prompts for _ in wish.seeds]
    against = [captions.join("", bad)] * len(prompts) if bad else None
    seeds = list(wish.seeds) * len(wish.prompts)
    rows: dict[str, list[images.Pixels]] = {}
    with progress.bar("paint", len(chosen) * len(prompts), "pictures") as report:
        for model, painter, adapter in _ready(chosen, turned_by):
            _check_room(painter, [*prompts, *(against or [])])
            done = len(rows) * len(prompts)
            with adapters.use(painter.network, state(adapter, turned)):
                rows[model.name] = list(
                    sampling.paint(
                        painter,
                        prompts,
                        seeds,
                        sampled[model.name],
                        pixels=model.base.pixels,
                        batch_images=profile.generate.batch_images,
                        against=against,
                        report=progress.after(done, report),
                    )
                )
    told = {
        "prompts": prompts,
        "against": against,
        "seeds": seeds,
        "dials": {
            root: {"share": share, "lora": images.sha256(turned_by[root] / weight_files.FILE)}
            for root, share in turned.items()
        },
        "models": {
            model.name: model.identity() | dataclasses.asdict(sampled[model.name])
            for model in chosen
        },
    }
    return _write(wish, {model.name: rows[model.name] for model in chosen}, told)


def _rows(models: Sequence[str], profile: Profile) -> list[Model]:
    """The models by the names of their rows: their own, or what stands before ``=``."""
    found: dict[str, Model] = {}
    for text in dict.fromkeys(models):
        row, name = split_name(text)
        model = named(name, profile)
        row = row or model.name
        if row in found:
            raise ParamsError(f"--model {text!r}: another row is called {row!r}; name it apart")
        found[row] = dataclasses.replace(model, name=row)
    return list(found.values())


def split_name(text: str) -> tuple[str | None, str]:
    """Return the name of a row and the model of ``NAME=MODEL``; a path may hold a ``=``."""
    row, sign, model = text.partition("=")
    return (row, model) if sign and row and "/" not in row else (None, text)


def how(model: Model, profile: Profile) -> Sampling:
    """Return how a model is sampled in the stage generate."""
    return candidates.how(profile).of(guided=model.guided)


def _how(model: Model, wish: Wish, profile: Profile) -> Sampling:
    """Sampling settings: those of the stage generate, with the options of the command."""
    usual = candidates.how(profile).of(guided=model.guided or wish.guidance is not None)
    return dataclasses.replace(
        usual,
        steps=wish.steps or usual.steps,
        guidance=wish.guidance or usual.guidance,
    )


def _criteria(profile: Profile) -> Path:
    """The tree that the annotator judged by, or the profile's where nothing was judged yet."""
    judged = paths.JUDGED_BY
    return judged if judged.is_file() else paths.CRITERIA / profile.annotate.criteria


def _steered(
    wish: Wish, criteria: Tree, how: Mapping[str, Sampling]
) -> tuple[list[str], list[str]]:
    """Phrases to ask for, and phrases to lead away from."""
    promoted = [p for name in wish.promote if "=" not in name for p in _leaves(name, criteria)]
    suppressed = [
        p for name in wish.suppress if "=" not in name for p in _leaves(name, criteria)
    ]
    off = [name for name, own in how.items() if own.guidance == 1]
    if suppressed and off:
        raise ParamsError(
            "--suppress leads away from a bad pole by guidance, which is 1, off, for "
            f"{', '.join(off)}; add --guidance 2, or --promote the same criterion"
        )
    unique = dict.fromkeys
    good = captions.winner(unique(promoted), criteria)
    bad = captions.loser(unique(suppressed), criteria)
    return good, bad


def turns(promote: Sequence[str], suppress: Sequence[str], criteria: Tree) -> dict[str, float]:
    """Return by which share each dial is turned: those named with a number, ``light=0.5``.

    Raises:
        ParamsError: A name is no root, a share is no number, or a root is named twice.
    """
    found: dict[str, float] = {}
    for option, names, sign in (("--promote", promote, 1), ("--suppress", suppress, -1)):
        for name in (one for one in names if "=" in one):
            root, _, text = name.partition("=")
            if root not in criteria.roots():
                raise ParamsError(
                    f"{option} {name!r}: a dial is of a root of the criteria, one of "
                    f"{', '.join(criteria.roots())}; without a number any criterion or branch "
                    "steers through words"
                )
            if root in found:
                raise ParamsError(f"{option} {name!r}: the dial of {root} is turned twice")
            try:
                share = float(text)
            except ValueError:
                share = math.nan
            if not 0 < share <= MOST:
                raise ParamsError(
                    f"{option} {name!r}: the share should be a number above 0, up to {MOST:g}; "
                    "1 is a whole turn"
                )
            found[root] = sign * share
    return found


def state(adapter: str | None, turned: Mapping[str, float]) -> "State":
    """Return the state of the network with dials added to a model."""
    if not turned:
        return adapter
    own = {} if adapter is None else {adapter: 1.0}
    return own | {f"{DIAL}{root}": share for root, share in turned.items()}


def _leaves(name: str, criteria: Tree) -> list[str]:
    leaves = criteria.leaves()
    found = [path for path in leaves if path == name or path.startswith(f"{name}/")]
    if not found:
        raise ParamsError(
            f"{name!r} is no criterion or branch of the domain {criteria.domain!r}; its roots "
            f"are {', '.join(criteria.roots())}; `atelier criteria show` draws the tree"
        )
    return found


def named(name: str, profile: Profile) -> Model:
    """Return the model that a person named.

    Raises:
        ParamsError: There is none of that name.
        ArtifactError: It was not trained yet.
    """
    objectives = profile.cpo.objectives
    if name == candidates.BASE:
        return Model(name, profile.model, None)
    if name == candidates.THETA1:
        return _trained(Model(name, profile.model, paths.SFT), "sft", [candidates.BASE])
    if name in objectives:
        guided = not objectives[name].sampled_without_guidance()
        model = Model(name, profile.model, paths.CPO / name, guided)
        others = {candidates.THETA1: paths.SFT} | {one: paths.CPO / one for one in objectives}
        here = [one for one, folder in others.items() if weight_files.brought(folder)]
        return _trained(model, "cpo", [candidates.BASE, *here])
    if name.startswith("models:/"):
        base, lora, guided = registry.fetch(name)
        return Model(name.removeprefix("models:/"), base, lora, guided)
    if (Path(name) / _BASE_INDEX).is_file():
        alone = profile.model.model_copy(update={"source": name, "revision": None})
        return Model(name, alone, None)
    if (brought := weight_files.brought(Path(name))) is not None:
        return Model(name, profile.model, brought)
    known = ", ".join([candidates.BASE, candidates.THETA1, *objectives])
    raise ParamsError(
        f"--model {name!r} is unknown; it should be one of {known}, a .safetensors file of a "
        "LoRA or the folder with one (docs/formats.md), the folder of a base such as "
        "base/starter, or an address in the registry such as "
        "models:/atelier-starter-theta@champion"
    )


def _trained(model: Model, stage: str, others: Sequence[str]) -> Model:
    """Return a model whose weights are here.

    Raises:
        ArtifactError: They are not: nothing was loaded yet.
    """
    assert model.lora is not None
    if weight_files.brought(model.lora) is None:
        options = " or ".join(f"`--model {one}`" for one in others)
        raise ArtifactError(
            f"{model.name} was not trained yet: {model.lora / weight_files.FILE} is absent; "
            f"run `dvc repro {stage}`, or take {options}"
        )
    return model


def _ready(
    chosen: Sequence[Model], turned: Mapping[str, Path]
) -> Iterator[tuple[Model, "Denoiser", str | None]]:
    """Each model with its painter and adapter; models on one base share it in memory."""
    from atelier.models import adapters, loading

    bases = list(dict.fromkeys(model.base for model in chosen))
    for base in bases:
        painter = loading.load(base)
        for root, folder in turned.items():
            adapters.attach(painter, f"{DIAL}{root}", folder)
        for number, model in enumerate(model for model in chosen if model.base == base):
            if model.lora is None:
                yield model, painter, None
            else:
                adapters.attach(painter, f"painting{number}", model.lora)
                yield model, painter, f"painting{number}"


def _check_room(painter: "Denoiser", prompts: Sequence[str]) -> None:
    for prompt in dict.fromkeys(prompts):
        tokens = painter.count_tokens(prompt)
        if tokens > painter.token_budget:
            raise ParamsError(
                f"the prompt has {tokens} tokens with its criteria, this model reads "
                f"{painter.token_budget}; shorten it, or name fewer criteria: {prompt!r}"
            )


def _write(wish: Wish, rows: dict[str, list[images.Pixels]], how: Mapping[str, object]) -> Path:
    several = len(wish.seeds) > 1
    headings = [
        f"{prompt} · {seed}" if several else prompt
        for prompt in wish.prompts
        for seed in wish.seeds
    ]
    for name, pictures in rows.items():
        for number, picture in enumerate(pictures):
            file = wish.out / re.sub(r"[^\w.-]+", "-", name) / f"{number:03}.png"
            atomic.write(file, images.png(picture))
    atomic.write(wish.out / "paint.json", json.dumps(how, indent=2, ensure_ascii=False) + "\n")
    grid = wish.out / "grid.png"
    atomic.write(grid, images.png(np.array(image_grids.labelled(rows, headings))))
    return grid
