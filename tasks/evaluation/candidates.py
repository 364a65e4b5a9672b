"""Who is compared: base, θ1 with and without being told, and the θ of each objective."""

from dataclasses import dataclass
from pathlib import Path

from atelier.config.objectives import (
    CPO,
    CPOS,
    DDSPO,
    DPO,
    NPO,
    SDPO,
    SPO,
    MaPO,
    Objective,
    TeacherTaught,
)
from atelier.config.profile import Profile
from atelier.config.training import MinSNR, Weighting
from atelier.errors import ArtifactError
from atelier.models import weight_files
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
        with_positives: Whether prompts name the good pole of every active criterion.
    """

    name: str
    label: str
    about: str
    adapter: str | None
    folder: Path | None
    negative: Negative | None = None
    with_positives: bool = False

    def loras(self) -> dict[str, Path]:
        """Return the folder of each LoRA that it paints with, by its name in the network."""
        found = {}
        if self.adapter is not None and self.folder is not None:
            found[self.adapter] = self.folder
        if self.negative is not None:
            found[self.negative.adapter] = self.negative.folder
        return found


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
        if not isinstance(objective, NPO):
            about = f"{_objective(objective)}; prompted with captions alone."
            found.append(Candidate(name, f"θ {name}", about, name, paths.CPO / name))
    alone = {one.name: one for one in found}
    for name, objective in profile.cpo.objectives.items():
        if isinstance(objective, NPO):
            found += [_beside(alone[other], name, objective) for other in objective.beside]
    for folder in (folder for one in found for folder in one.loras().values()):
        if not weight_files.file(folder).is_file():
            stage = folder.relative_to(paths.ARTIFACTS).parts[0]
            raise ArtifactError(
                f"{folder / weight_files.FILE} is absent; run `dvc repro {stage}`"
            )
    return found


def _beside(other: Candidate, name: str, objective: NPO) -> Candidate:
    """A painter with NPO on the negative branch of its guidance."""
    return Candidate(
        f"{other.name}+{name}",
        f"{other.label} + {name}",
        f"{other.label}, guided away from Diffusion-NPO (β {objective.beta:g}, w "
        f"{objective.w:g}) on the empty prompt.",
        other.adapter,
        other.folder,
        Negative(name, paths.CPO / name, objective.w),
    )


def _objective(objective: Objective) -> str:
    if isinstance(objective, CPO | CPOS | DDSPO):
        return _taught(objective)
    if isinstance(objective, DPO):
        return f"Diffusion-DPO on pairs of paintings, β {objective.beta:g}"
    if isinstance(objective, MaPO):
        return f"MaPO on pairs of paintings, β {objective.beta:g}, scale {objective.scale:g}"
    if isinstance(objective, SPO):
        return (
            "SPO by the measured annotator (ours, no step-aware scorer), "
            f"β {objective.beta:g}, clip {objective.clip:g}"
        )
    assert isinstance(objective, SDPO)
    return (
        f"Diffusion-SDPO on pairs of paintings, β {objective.beta:g}, slack {objective.slack:g}"
    )


def _taught(objective: TeacherTaught) -> str:
    details = [
        {
            "labelled": "winner: the labelled good poles",
            "flipped": "winner: every active pair at its good pole (ours, not the paper's)",
        }[objective.winner],
        *_weighted(objective.weighting),
    ]
    if isinstance(objective, DDSPO):
        return f"DDSPO with the base as teacher, β {objective.beta:g}, " + ", ".join(details)
    if objective.teacher != "sft":
        who = {"base": "the base", "self": "θ itself"}[objective.teacher]
        details.append(f"targets from {who} (ours)")
    if objective.confidence == "weighs":
        details.append("unsure judgements enter less often (ours)")
    if isinstance(objective, CPO):
        about = f"Complex Preference Optimization, not stabilised, β {objective.beta:g}"
    else:
        about = (
            "Stabilised Complex Preference Optimization, loser target "
            f"{objective.loser_target}, ω {_omega(objective)}"
        )
    return ", ".join([about, *details])


def _omega(objective: CPOS) -> str:
    if isinstance(objective.omega, dict):
        return "by root (" + ", ".join(f"{k} {v:g}" for k, v in objective.omega.items()) + ")"
    return f"{objective.omega:g}"


def _weighted(weighting: Weighting) -> list[str]:
    if isinstance(weighting, MinSNR):
        return [f"min-SNR weights, γ {weighting.min_snr_gamma:g}"]
    return {"constant": [], "snr": ["SNR weights"]}[weighting]


def sweeps(profile: Profile) -> list[Sweep]:
    """Return the objectives that differ by ω alone, as the points of a curve."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for name, objective in profile.cpo.objectives.items():
        if isinstance(objective, CPOS) and isinstance(objective.omega, int | float):
            alike = objective.model_copy(update={"omega": 0.0}).model_dump_json()
            groups.setdefault(alike, []).append((objective.omega, name))
    return [
        Sweep("ω, all else equal: " + ", ".join(name for _, name in points), "ω", points)
        for points in map(sorted, groups.values())
        if len(points) > 1
    ]
