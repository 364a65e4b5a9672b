"""Session: one base in memory, for programs that judge, train, paint and save without DVC.

    session = Session.open("params/starter.yaml")
    pictures = [session.judged(pixels, caption) for pixels, caption in mine]
    session.fine_tune(pictures)            # θ1
    session.align(pictures, "cpo-s")       # θ
    painted = session.paint(["a landscape in blue"], [0], state="cpo-s")
    session.save("cpo-s", Path("lora"))

It uses the settings of a profile and the same functions as the stages. What the stages add is
left out: the cache on disk, resuming, several GPUs, pairs of pictures, tracking.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atelier import images
from atelier.annotators import measured
from atelier.config.objectives import Objective
from atelier.config.profile import Profile, read_profile
from atelier.config.training import Learns, Training
from atelier.criteria import captions, tree
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.images import Pixels
from atelier.models import adapters, loading, sampling
from atelier.models.denoiser import Denoiser
from atelier.models.sampling import Sampling
from atelier.objectives import denoising
from atelier.objectives.objective import Setup
from atelier.reporting import Report, silent
from atelier.training import loop
from atelier.training.corpus import Corpus
from atelier.training.loop import Step
from atelier.training.randomness import generator

THETA1 = "theta1"
_LARGEST_PIXELS = 100_000_000
_IMAGES_AT_ONCE = 16
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """A picture with its caption and the criteria that were found on it.

    Attributes:
        pixels: RGB, uint8 ``[H, W, 3]``, square, of the side that the model has.
        caption: What is to be seen.
        positive: Paths of the criteria at their good pole.
        negative: Paths of those at their bad pole.
    """

    pixels: Pixels
    caption: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]


class Session:
    """One base in memory with the states that were trained on it.

    Attributes:
        profile: Settings of trainings and sampling.
        criteria: The tree that pictures are judged by.
        painter: The base; its network has an adapter for each trained state.
    """

    def __init__(self, profile: Profile, criteria: Tree) -> None:
        """Load the base that ``model:`` of the profile names.

        Raises:
            ArtifactError: The base is absent or is of another family.
        """
        self.profile = profile
        self.criteria = criteria
        self.painter: Denoiser = loading.load(profile.model)
        self._states: list[str] = []

    @classmethod
    def open(cls, profile: str | Path, criteria: str | Path | None = None) -> "Session":
        """Read the settings and load the base.

        Args:
            profile: A file of ``params/``. A base in a folder is looked for in the working
                folder, then beside ``params/``.
            criteria: A file of criteria; None: the one of ``params/criteria/`` that the
                profile names.

        Raises:
            ParamsError: The profile does not fit.
            CriteriaError: The criteria do not fit.
            ArtifactError: The base is absent or is of another family.
        """
        place = Path(profile)
        read = read_profile(place)
        beside = place.resolve().parents[1] / read.model.source
        if not Path(read.model.source).is_dir() and beside.is_dir():
            model = read.model.model_copy(update={"source": str(beside)})
            read = read.model_copy(update={"model": model})
        file = Path(criteria or place.parent / "criteria" / read.annotate.criteria)
        return cls(read, tree.parse(file))

    def judged(self, picture: Pixels | str | Path, caption: str) -> Judged:
        """Judge a picture by the pixel measures of the criteria.

        Args:
            picture: Pixels ``[H, W, 3]``, or a file; its middle square is judged.
            caption: Rules out the criteria that do not apply.

        Raises:
            ImageError: The file is no picture that can be read.
        """
        side = self.profile.model.pixels
        opened = (
            images.read(Path(picture), _LARGEST_PIXELS)
            if isinstance(picture, str | Path)
            else Image.fromarray(picture)
        )
        pixels = images.square(opened, side)
        within = self.criteria.conceivable(caption)
        found = [
            (path, pole)
            for path, pole, _ in measured.judge(pixels, self.criteria)
            if path in within
        ]
        return Judged(
            pixels,
            caption,
            tuple(path for path, pole in found if pole == "positive"),
            tuple(path for path, pole in found if pole == "negative"),
        )

    def fine_tune(
        self,
        pictures: Sequence[Judged],
        *,
        steps: int | None = None,
        batch_images: int | None = None,
        report: Report = silent,
    ) -> dict[str, float]:
        """Train θ1, the state ``theta1``, on captions with attributes, by section ``sft``.

        Args:
            pictures: The training set.
            steps: Instead of the profile's.
            batch_images: Instead of the profile's.
            report: Receives the steps done and values of the training.

        Returns:
            The values of the last step: loss, gradient norm, learning rate.

        Raises:
            ParamsError: There is a θ1, or no picture.
            DivergedError: The loss is no longer finite.
        """
        params = self.profile.sft
        _refuse_lora_as_start("sft", params.init)
        corpus = self._encoded(pictures)
        training = _training(params.training, steps, batch_images)
        self._add(THETA1, params.lora, training.seed)
        step = denoising.step(
            self.painter,
            corpus,
            training,
            role="variants",
            caption_dropout=params.caption_dropout,
            weighting=params.weighting,
        )
        return self._fit(THETA1, step, params.learning_rate, training, report)

    def align(
        self,
        pictures: Sequence[Judged],
        objective: str,
        *,
        steps: int | None = None,
        batch_images: int | None = None,
        report: Report = silent,
    ) -> dict[str, float]:
        """Train θ by an entry of ``cpo.objectives``, whose name the state gets.

        Args:
            pictures: The training set.
            objective: Name of the entry: CPO, CPO-S, DDSPO or DiffusionNFT.
            steps: Instead of the profile's.
            batch_images: Instead of the profile's.
            report: As for ``fine_tune``.

        Returns:
            The values of the last step, those of the drift monitor with them.

        Raises:
            ParamsError: There is no such entry, it needs more than a session has, or there is
                no θ1 yet.
            DivergedError: The loss is no longer finite.
        """
        params = self.profile.cpo
        chosen = self._objective(objective)
        corpus = self._encoded(pictures)
        contrasts = chosen.contrasts()
        if contrasts is not None:
            rows = {**corpus.rows, "winner": corpus.rows[contrasts.winner]}
            corpus = replace(corpus, rows=rows)
        training = _training(params.training, steps, batch_images)
        if THETA1 not in self._states:
            raise ParamsError(f"{objective} needs θ1, which `fine_tune` trains; call it first")
        self._add(objective, params.lora, training.seed)
        if chosen.init == "sft":
            adapters.copy(self.painter.network, THETA1, objective)
        setup = Setup(
            self.painter,
            corpus,
            training,
            THETA1,
            objective,
            params.caption_dropout,
            negatives=torch.tensor([len(one.negative) for one in pictures]),
        )
        return self._fit(objective, chosen.step(setup), chosen.learning_rate, training, report)

    def paint(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        state: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> list[Pixels]:
        """Paint one picture for each prompt, from a seed of its own, by section ``generate``.

        Args:
            prompts: One for each picture.
            seeds: Of the starting noise of each picture.
            state: What was trained: ``theta1``, or the name of an objective; None: the base.
            steps: Instead of the profile's.
            guidance: Instead of the profile's; 1 is off.

        Returns:
            Pictures ``[H, W, 3]``, 8 bits a channel.

        Raises:
            ParamsError: There is no such state.
        """
        self._require(state)
        params = self.profile.generate
        how = Sampling(
            steps or params.steps, guidance or params.guidance, params.distilled_guidance
        )
        with adapters.use(self.painter.network, state):
            return list(
                sampling.paint(
                    self.painter,
                    prompts,
                    seeds,
                    how,
                    pixels=self.profile.model.pixels,
                    batch_images=params.batch_images,
                    report=silent,
                )
            )

    def load(self, state: str, place: Path) -> None:
        """Read a state that a stage, ``save`` or another trainer wrote.

        Args:
            state: What it is called from now on; ``theta1`` can teach ``align``.
            place: A folder of artifacts/, or a file or folder with a LoRA.

        Raises:
            ParamsError: There is a state of that name.
            ArtifactError: It is absent, damaged, or made for another base.
        """
        if state in self._states:
            raise ParamsError(f"there is a state {state!r} already; choose another name")
        adapters.attach(self.painter, state, place)
        self._states.append(state)

    def save(self, state: str, folder: Path) -> None:
        """Write a state as a LoRA that diffusers loads, or as full weights.

        Raises:
            ParamsError: There is no such state.
            DiskError: It cannot be written.
        """
        self._require(state)
        adapters.save(self.painter, state, folder)

    def _require(self, state: str | None) -> None:
        if state is not None and state not in self._states:
            trained = ", ".join(self._states) or "none"
            raise ParamsError(
                f"there is no state {state!r}; trained in this session: {trained}"
            )

    def _objective(self, name: str) -> Objective:
        every = self.profile.cpo.objectives
        if name not in every:
            raise ParamsError(
                f"objective {name!r} is none of cpo.objectives: {', '.join(every)}"
            )
        chosen = every[name]
        _refuse_lora_as_start(f"cpo.objectives.{name}", chosen.init)
        contrasts = chosen.contrasts()
        own_prompts = contrasts is not None and (contrasts.by_confidence or contrasts.omegas)
        if chosen.needs_pairs or chosen.needs_judge or own_prompts:
            raise ParamsError(
                f"cpo.objectives.{name} needs pairs of pictures, a judge in training, or "
                "prompts of its own, which a session does not have; run the stage, `dvc repro`"
            )
        return chosen

    def _add(self, name: str, lora: Learns, seed: int) -> None:
        if name in self._states:
            raise ParamsError(
                f"{name} is trained already; open another session to train it again"
            )
        adapters.add(self.painter.network, name, lora, seed=seed)
        self._states.append(name)

    def _fit(
        self, name: str, step: Step, learning_rate: float, training: Training, report: Report
    ) -> dict[str, float]:
        last: dict[str, float] = {}

        def keep(done: int, values: Mapping[str, float]) -> None:
            last.update(values)
            report(done, values)

        with (
            adapters.learning(self.painter.network, name),
            tempfile.TemporaryDirectory() as checkpoints,
        ):
            trained = adapters.weights(self.painter.network, name)
            weights = loop.fit(
                trained,
                step,
                learning_rate=learning_rate,
                params=training,
                folder=Path(checkpoints),
                report=keep,
            )
            for key, parameter in trained.items():
                parameter.data.copy_(weights[key])
        return last

    def _encoded(self, pictures: Sequence[Judged]) -> Corpus:
        """Return latents and conditions of the pictures, with the prompts of all roles."""
        if not pictures:
            raise ParamsError("a training needs pictures, and was given none")
        roles = self._roles(pictures)
        distinct = list(
            dict.fromkeys(["", *(p for of in roles.values() for v in of for p in v)])
        )
        number = {prompt: row for row, prompt in enumerate(distinct)}
        pixels = sampling.to_pixels(np.stack([one.pixels for one in pictures]))
        starts = range(0, len(pixels), _IMAGES_AT_ONCE)
        return Corpus(
            latents=torch.cat(
                [
                    self.painter.encode_images(pixels[start : start + _IMAGES_AT_ONCE])
                    for start in starts
                ]
            ).cpu(),
            prompts=self._conditions(distinct),
            rows={
                role: torch.tensor([[number[prompt] for prompt in one] for one in of])
                for role, of in roles.items()
            },
            empty=0,
        )

    def _conditions(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        parts = [
            self.painter.encode_texts(prompts[start : start + _TEXTS_AT_ONCE])
            for start in range(0, len(prompts), _TEXTS_AT_ONCE)
        ]
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    def _roles(self, pictures: Sequence[Judged]) -> dict[str, list[list[str]]]:
        """Return the prompts of each picture by their role, as the stages name them."""
        tree = self.criteria
        return {
            "variants": [self._variants(n, one) for n, one in enumerate(pictures)],
            "caption": [[self._prompt(one, [])] for one in pictures],
            "labelled": [
                [self._prompt(p, captions.winner(p.positive, tree))] for p in pictures
            ],
            "flipped": [
                [self._prompt(p, captions.flipped_winner(p.positive, p.negative, tree))]
                for p in pictures
            ],
            "loser": [[self._prompt(p, captions.loser(p.negative, tree))] for p in pictures],
        }

    def _variants(self, number: int, one: Judged) -> list[str]:
        """Return prompts for θ1, each phrase kept with 1 - ``sft.attribute_dropout``."""
        params = self.profile.sft
        every = captions.labelled(one.positive, one.negative, self.criteria)
        found = []
        for variant in range(params.prompt_variants):
            source = generator(params.training.seed, variant, f"dropout {number}")
            kept = torch.rand(len(every), generator=source) >= params.attribute_dropout
            found.append(
                self._prompt(one, [p for p, keep in zip(every, kept, strict=True) if keep])
            )
        return found

    def _prompt(self, one: Judged, attributes: Sequence[str]) -> str:
        """Return the caption with as many of the attributes as the encoders read."""
        budget, count = self.painter.token_budget, self.painter.count_tokens
        return captions.fit(one.caption, attributes, budget, count, seed=0).prompt


def _refuse_lora_as_start(section: str, init: str) -> None:
    if init not in ("base", "sft"):
        raise ParamsError(
            f"{section}.init is {init!r}, and a session begins with the base or with θ1; set "
            "it to base, or run the stage, `dvc repro`"
        )


def _training(params: Training, steps: int | None, batch_images: int | None) -> Training:
    """Return the settings of a training with other steps or another batch."""
    changes = {"steps": steps, "batch_images": batch_images}
    changed = {name: value for name, value in changes.items() if value is not None}
    return Training.model_validate(params.model_dump() | changed)
