"""Who is compared: base, θ1 with and without being told, and the θ of each objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError
from atelier.models import adapters
from atelier.params import CPO, CPOS, Profile
from tasks import paths
from tasks.prompts import Prompts

BASE = "base"
THETA1 = "theta1"
TOLD = "theta1+pos"


@dataclass(frozen=True)
class Contestant:
    """One painter of the comparison.

    Attributes:
        name: In files and metrics.
        label: In tables that people read.
        about: What it is and how it is prompted, in a sentence.
        adapter: Name of its LoRA in the network; None for the base.
        folder: Where its LoRA and curve lie; None for the base.
    """

    name: str
    label: str
    about: str
    adapter: str | None
    folder: Path | None

    def prompts(self, records: Sequence[Record], prompts: Prompts) -> list[str]:
        """Return what it is asked to paint: captions, with good poles for the told one."""
        if self.name == TOLD:
            return [prompts.flipped(record) for record in records]
        return [prompts.write(record, ()) for record in records]


def of(profile: Profile) -> list[Contestant]:
    """Return the painters in the order of tables, the base first.

    Raises:
        ArtifactError: An adapter is absent; says which stage makes it.
    """
    found = [
        Contestant(
            BASE, "base", "The model before any training here; captions alone.", None, None
        ),
        Contestant(
            THETA1,
            "θ1",
            "The base after SFT on captions with attributes; prompted with captions alone.",
            THETA1,
            paths.SFT,
        ),
        Contestant(
            TOLD,
            "θ1, told",
            "The same θ1, prompted with the caption and the good pole of every criterion that "
            "is active in the test painting: more than the others are told.",
            THETA1,
            paths.SFT,
        ),
    ]
    for name, objective in profile.cpo.objectives.items():
        about = f"{_objective(objective)}; prompted with captions alone."
        found.append(Contestant(name, f"θ {name}", about, name, paths.CPO / name))
    for one in found:
        if one.folder is not None and not (one.folder / adapters.FILE).is_file():
            stage = one.folder.relative_to(paths.ARTIFACTS).parts[0]
            raise ArtifactError(
                f"{one.folder / adapters.FILE} is absent; run `dvc repro {stage}`"
            )
    return found


def _objective(objective: CPO | CPOS) -> str:
    winner = {
        "labelled": "winner: the labelled good poles",
        "flipped": "winner: every active pair at its good pole (ours, not the paper's)",
    }[objective.winner]
    if isinstance(objective, CPO):
        return (
            f"Complex Preference Optimization, not stabilised, β {objective.beta:g}, {winner}"
        )
    return (
        f"Stabilised Complex Preference Optimization, loser target {objective.loser_target}, "
        f"ω {objective.omega:g}, {winner}"
    )
