"""Candidates of the comparison: base, θ1, θ1 with good poles, the θ of each objective."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from atelier.config.objectives import Objective
from atelier.config.profile import Profile
from atelier.errors import ArtifactError
from atelier.models.files import weight_files
from atelier.models.sampling_settings import Sampling
from atelier.reports.evaluation_data import Sweep
from tasks.run import paths

BASE = "base"
THETA1 = "theta1"
WITH_POSITIVES = "theta1+pos"


@dataclass(frozen=True)
class Negative:
    """What stands on the negative branch of guidance beside a painter.

    Attributes:
        adapter: Name of the LoRA that learned what is bad.
        folder: Where it lies.
        w: ``theta_neg = base + (1 - w) delta_pos + delta_npo``.
    """

    adapter: str
    folder: Path
    w: float


@dataclass(frozen=True)
class Candidate:
    """One painter of the comparison.

    Attributes:
        name: In files and metrics.
        label: In tables that people read.
        about: What it is and how it is prompted, in a sentence.
        adapter: Name of its LoRA in the network; None for the base.
        folder: Where its LoRA and curve lie; None for the base.
        negative: What guidance leads away from; None for the painter itself, unprompted.
        guided: Whether it is sampled with the guidance of the others; else with none.
        with_positives: Whether prompts name the good pole of every active criterion.
        milestone: After how many steps of a training its weights were kept; None: after all.
    """

    name: str
    label: str
    about: str
    adapter: str | None
    folder: Path | None
    negative: Negative | None = None
    guided: bool = True
    with_positives: bool = False
    milestone: int | None = None

    def how(self, profile: Profile) -> Sampling:
        """Return how it is sampled."""
        return how(profile).of(guided=self.guided)

    def loras(self) -> dict[str, Path]:
        """Return the folder of each LoRA that it paints with, by its name in the network."""
        found = {}
        if self.adapter is not None and self.folder is not None:
            found[self.adapter] = self.folder
        if self.negative is not None:
            found[self.negative.adapter] = self.negative.folder
        return found


def how(profile: Profile) -> Sampling:
    """Return how a profile samples candidates that are guided."""
    sampled = profile.generate
    return Sampling(sampled.steps, sampled.guidance, sampled.distilled_guidance)


def of(profile: Profile) -> list[Candidate]:
    """Return the painters in the order of tables, the base first.

    Raises:
        ArtifactError: An adapter is absent; says which stage makes it.
    """
    found = [
        Candidate(
            BASE, "base", "The model before any training here; captions alone.", None, None
        ),
        Candidate(
            THETA1,
            "θ1",
            "The base after SFT on captions with attributes; prompted with captions alone.",
            THETA1,
            paths.SFT,
        ),
        Candidate(
            WITH_POSITIVES,
            "θ1, told",
            "The same θ1, prompted with the caption and the good pole of every criterion that "
            "is active in the test painting: more than the others are told.",
            THETA1,
            paths.SFT,
            with_positives=True,
        ),
    ]
    for name, objective in profile.cpo.objectives.items():
        if objective.negative_branch() is None:
            guided = not objective.sampled_without_guidance()
            about = f"{objective.about()}; prompted with captions alone" + (
                "." if guided else ", and sampled without guidance."
            )
            folder = paths.CPO / name
            whole = Candidate(name, f"θ {name}", about, name, folder, guided=guided)
            found += [whole, *(_on_the_way(whole, steps) for steps in objective.milestones)]
    alone = {one.name: one for one in found}
    for name, objective in profile.cpo.objectives.items():
        branch = objective.negative_branch()
        if branch is not None:
            found += [
                _beside(alone[other], name, objective, branch.w) for other in branch.beside
            ]
    for folder in (folder for one in found for folder in one.loras().values()):
        if not weight_files.file(folder).is_file():
            stage = folder.relative_to(paths.ARTIFACTS).parts[0]
            raise ArtifactError(
                f"{folder / weight_files.FILE} is absent; run `dvc repro {stage}`"
            )
    return found


def _on_the_way(whole: Candidate, steps: int) -> Candidate:
    """A candidate with the weights that a training had after some of its steps."""
    assert whole.folder is not None
    return dataclasses.replace(
        whole,
        name=f"{whole.name}@{steps}",
        label=f"{whole.label} after {steps} steps",
        about=f"{whole.about} The weights after {steps} steps of its training.",
        adapter=f"{whole.name}@{steps}",
        folder=paths.milestone(whole.folder, steps),
        milestone=steps,
    )


def _beside(other: Candidate, name: str, objective: Objective, w: float) -> Candidate:
    """A candidate with an objective's θ on the negative branch of its guidance."""
    return Candidate(
        f"{other.name}+{name}",
        f"{other.label} + {name}",
        f"{other.label}, guided away from {objective.about()} on the empty prompt.",
        other.adapter,
        other.folder,
        Negative(name, paths.CPO / name, w),
    )


def sweeps(profile: Profile) -> list[Sweep]:
    """Return the objectives that differ by ω alone, as the points of a curve."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for name, objective in profile.cpo.objectives.items():
        omega = objective.swept()
        if omega is not None:
            alike = objective.model_copy(update={"omega": 0.0}).model_dump_json()
            groups.setdefault(alike, []).append((omega, name))
    return [
        Sweep("ω, all else equal: " + ", ".join(name for _, name in points), "ω", points)
        for points in map(sorted, groups.values())
        if len(points) > 1
    ]
