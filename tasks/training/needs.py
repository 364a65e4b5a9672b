"""Needs of a training, computed from configurations: memory by phase, disk by kind, FLOPs.

Everything here is *computed*: nothing is loaded. A check measures (``estimate``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from atelier.config.objectives import CPOParams
from atelier.config.profile import Profile
from atelier.config.training import Learns, SFTParams
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from atelier.models.costs import parameter_count, pass_cost
from atelier.models.costs.pace import Trained
from atelier.models.costs.parameter_count import Beside, Outline
from atelier.models.costs.pass_cost import PassCost
from atelier.objectives.objective import Passes, TeacherTargets
from tasks.run import paths
from tasks.training import materials
from tasks.training.prompts import Prompts

Stage = Literal["sft", "cpo"]
RUNTIME = 0.8e9  # bytes of Python with torch, diffusers and transformers
_ENCODED_TOGETHER = 16  # pictures that are given to the codec at once
_PAINTED_TOGETHER = 4  # validation images
PAPER = 10_277  # pictures of the paper's corpus
ATTRIBUTES = 12  # active ones of an imagined picture, half of them good


@dataclass(frozen=True)
class Need:
    """One figure.

    Attributes:
        name: What needs it.
        bytes: How much.
        how: How it is known, and of what it consists.
    """

    name: str
    bytes: float
    how: str


class Needs:
    """The needs of a stage."""

    def __init__(self, stage: Stage, profile: Profile, records: Sequence[Record]) -> None:
        """Count; only configurations are read.

        Raises:
            ArtifactError: The base is absent or is no pipeline.
        """
        self._stage, self._profile, self._records = stage, profile, records
        self.section: SFTParams | CPOParams = profile.sft if stage == "sft" else profile.cpo
        learns: list[Learns] = [self.section.lora]
        if stage == "cpo":
            learns.append(profile.sft.lora)
        self.counted: Outline = parameter_count.outline(profile.model, learns)
        self.beside: Beside = parameter_count.beside(profile.model)

    @cached_property
    def costs(self) -> PassCost:
        """Return what an image costs in the network."""
        training = self.section.training
        return pass_cost.count(
            self._profile.model,
            self.section.lora,
            half=training.precision != "fp32",
            gradient_checkpointing=training.gradient_checkpointing,
        )

    def trainings(self) -> list[Trained]:
        """Return what an image costs in a step of each training of the stage."""
        kinds = ["sft"]
        if isinstance(self.section, CPOParams):
            kinds = [one.objective for one in self.section.objectives.values()]
        return [
            Trained(
                kind,
                one.policy,
                one.frozen,
                one.policy * self.costs.policy + one.frozen * self.costs.frozen,
            )
            for kind, one in zip(kinds, self._passes(), strict=True)
        ]

    def _passes(self) -> list[Passes]:
        """The passes of an image in each training."""
        if isinstance(self.section, SFTParams):
            return [Passes(policy=1, frozen=0)]
        images = self.section.training.batch_images
        return [one.passes(images) for one in self.section.objectives.values()]

    @property
    def base(self) -> float:
        """Return the bytes of the frozen network."""
        return parameter_count.frozen_bytes(self.counted, self._profile.model)

    @property
    def encoders(self) -> float:
        """Return the bytes of the text encoders."""
        return self.beside.encoders * parameter_count.BYTES[self._profile.model.dtype]

    @property
    def codec(self) -> float:
        """Return the bytes of the codec."""
        return self.beside.codec * self.beside.codec_bytes

    @property
    def teacher(self) -> float:
        """Return the bytes of θ1, which is float32 on any base."""
        return 4.0 * sum(self.counted.adapters[1:])

    @property
    def learning(self) -> float:
        """Return the bytes of what learns: weights, gradient, optimizer, average."""
        training = self.section.training
        return parameter_count.trained_bytes(
            self.counted.adapters[0],
            training.optimizer,
            averaged=training.ema_decay is not None,
        )

    def weights(self) -> Iterator[Need]:
        """Yield what each set of weights occupies."""
        model, training = self._profile.model, self.section.training
        quantised = f", linear ones in {model.quantise}" if model.quantise else ""
        yield Need(
            "base, frozen",
            self.base,
            f"computed: {self.counted.frozen:,} weights in {model.dtype}{quantised}",
        )
        yield Need(
            "text encoders",
            self.encoders,
            f"computed: {self.beside.encoders:,} weights in {model.dtype}",
        )
        precision = "float32" if self.beside.codec_bytes == 4 else model.dtype
        yield Need(
            "codec", self.codec, f"computed: {self.beside.codec:,} weights in {precision}"
        )
        if self._stage == "cpo":
            yield Need(
                "θ1, frozen",
                self.teacher,
                f"computed: {self.counted.adapters[1]:,} weights in float32",
            )
        yield Need(
            "what learns",
            self.learning,
            f"computed: {self.counted.adapters[0]:,} weights with gradient, "
            + training.optimizer
            + (", average" if training.ema_decay is not None else ""),
        )

    def device(self) -> Iterator[Need]:
        """Yield what each phase holds on the device, its largest passes included."""
        model, training = self._profile.model, self.section.training
        pass_ = self.beside.encoding_bytes * self._at_once(_ENCODED_TOGETHER)
        yield Need(
            "device: encoding",
            self.encoders + self.codec + pass_,
            f"computed: encoders, codec and {size(pass_)} of the codec's passes",
        )
        held = self.base + self.teacher + self.learning
        words = "base, " + ("θ1, " if self.teacher else "") + "what learns"
        if not model.store_texts:
            held, words = held + self.encoders, f"{words}, encoders"
        images = training.images_at_once or training.batch_images
        pass_ = self.costs.held * images * max(one.policy for one in self._passes())
        if training.grids is not None:
            held, words = held + self.codec, f"{words}, codec"
            decoding = self.beside.decoding_bytes * self._at_once(_PAINTED_TOGETHER)
            pass_ = max(pass_, decoding)
        yield Need(
            "device: training",
            held + pass_,
            f"computed: {words} and {size(pass_)} of passes, {images} images at once",
        )
        loras = 4.0 * (len(self._profile.cpo.objectives) * self.counted.adapters[0])
        together = self._at_once(self._profile.generate.batch_images)
        pass_ = self.beside.decoding_bytes * together
        yield Need(
            "device: painting",
            self.base
            + self.encoders
            + self.codec
            + loras
            + (self.teacher or 4.0 * self.counted.adapters[0])
            + pass_,
            f"computed: base, encoders, codec, all LoRAs and {size(pass_)} of decoding",
        )

    def host(self) -> Need:
        """Return what loading holds in the host's memory: encoders leave before the base."""
        staying = 0.0 if self._profile.model.store_texts else self.encoders
        return Need(
            "host: loading",
            max(self.encoders + self.codec, self.base + staying) + RUNTIME,
            "computed: the base, or encoders and codec before it, and "
            f"{size(RUNTIME)} of Python",
        )

    def disk(self) -> Iterator[Need]:
        """Yield what is written, by kind."""
        model, training = self._profile.model, self.section.training
        if model.store_texts:
            count = self.prompts()
            each = self.beside.prompt_bytes
            yield Need(
                "disk: text conditions",
                count * each,
                f"computed: {count:,} distinct prompts of {size(each)}; "
                "model.store_texts: false stores none",
            )
        else:
            yield Need("disk: text conditions", 0, "computed: model.store_texts is false")
        each = self.beside.latent_bytes
        yield Need(
            "disk: latents",
            len(self._records) * each,
            f"computed: {len(self._records):,} pictures of {size(each)}",
        )
        if isinstance(self.section, CPOParams) and self.section.keep_targets:
            kinds = {
                (one.taught_by(), one.teacher_guidance, repr(one.contrasts()))
                for one in self.section.objectives.values()
                if isinstance(one, TeacherTargets)
                and one.taught_by() != "self"
                and not one.needs_judge
            }
            seen = training.steps * training.batch_images * len(kinds)
            yield Need(
                "disk: kept targets",
                2 * seen * each,
                f"computed: two for {seen:,} images in all steps, {len(kinds)} kind(s)",
            )
        state = self.learning - 4.0 * self.counted.adapters[0]  # checkpoints hold no gradients
        yield Need(
            "disk: checkpoints",
            state * training.checkpoints_kept,
            f"computed: {training.checkpoints_kept} kept",
        )
        results = len(self.section.objectives) if isinstance(self.section, CPOParams) else 1
        yield Need(
            "disk: results",
            4.0 * self.counted.adapters[0] * results,
            f"computed: {results} × {self.counted.adapters[0]:,} weights in float32",
        )

    def prompts(self) -> int:
        """Return how many distinct prompts the stage encodes, if the encoders cut none."""
        profile, records = self._profile, self._records
        judged = paths.JUDGED_BY  # by which tree; the profile's, where nothing was judged yet
        file = judged if judged.is_file() else paths.CRITERIA / profile.annotate.criteria
        writer = Prompts(_Endless(), tree.parse(file), self.section.training.seed)
        if isinstance(self.section, SFTParams):
            variants, dropout = self.section.prompt_variants, self.section.attribute_dropout
            roles = {"": [writer.labelled(one, variants, dropout) for one in records]}
        else:
            roles = materials.roles(
                records, writer, profile, materials.paired(records, profile)
            )
        every = {prompt for role in roles.values() for row in role for prompt in row}
        return len(every | {""})

    def _at_once(self, pictures: int) -> int:
        """How many of so many pictures the codec takes in one pass."""
        model = self._profile.model
        limit = model.codec.pixels_at_once
        return pictures if limit is None else min(max(limit // model.pixels**2, 1), pictures)


def imagined(profile: Profile) -> list[Record]:
    """Return records of as many pictures as the paper trains on, before there are any."""
    every = list(tree.parse(paths.CRITERIA / profile.annotate.criteria).leaves())
    active = every[:ATTRIBUTES]
    half = len(active) // 2
    return [
        Record(
            image=f"{number:064x}",
            file=f"{number}.png",
            caption=f"picture {number}",
            positive=active[:half],
            negative=active[half:],
        )
        for number in range(round(PAPER * profile.split.train))
    ]


class _Endless:
    """Stands for a painter that reads prompts of any length."""

    token_budget = 10**9

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)


def size(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
