"""``atelier conflicts``: angles between the directions of criteria in θ1."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from atelier import atomic
from atelier.config.profile import Profile
from atelier.criteria import captions, tree
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError
from atelier.metrics import conflicts
from atelier.metrics.conflicts import Met, Pair
from atelier.models import adapters, loading
from atelier.models.denoiser import Denoiser
from atelier.training.corpus import Corpus
from atelier.training.loop import draw_times, generator
from tasks.run import paths, progress, split_parts
from tasks.run.console import console
from tasks.training import encoded_dataset
from tasks.training.prompts import Prompts

FOLDER = paths.ARTIFACTS / "conflicts"
_TEACHER = "theta1"
_SHOWN = 12  # pairs that the terminal shows of each end
_LEAST = 5  # images in which two criteria must have met


@dataclass(frozen=True)
class Look:
    """How many images are looked at, and at how many times each."""

    images: int
    times: int


def run(profile: Profile, look: Look) -> Path:
    """Write the table and the heat map, and print the pairs that fight; return the table.

    For each image, at times drawn as CPO draws them, θ1 predicts under the caption with each
    active criterion's good pole, and with its bad pole.

    Raises:
        ArtifactError: An input is absent, or no two criteria meet often enough.
    """
    records = split_parts.read("train", "`atelier conflicts`")
    criteria = tree.parse(paths.JUDGED_BY)
    chosen = [one for one in records if len(_active(one)) > 1]
    chosen = sorted(chosen, key=lambda one: one.image)[: look.images]
    if len(chosen) < _LEAST:
        raise ArtifactError(
            f"{len(chosen)} training images have two active criteria, {_LEAST} are needed to "
            "compare any; annotate more"
        )
    painter = loading.load(profile.model)
    prompts = Prompts(painter, criteria, profile.cpo.training.seed)
    encoded = encoded_dataset.encode(
        painter, chosen, _poles(chosen, prompts, criteria), profile
    )
    adapters.attach(painter, _TEACHER, paths.SFT)
    with (
        progress.bar("conflicts", len(chosen), "images") as report,
        torch.no_grad(),
        adapters.use(painter.network, _TEACHER),
    ):
        found = []
        for row, record in enumerate(chosen):
            found.append(_met(painter, encoded, row, record, criteria, profile, look.times))
            report(row + 1, {})
    rows = conflicts.met(found, [record.caption for record in chosen], least=_LEAST)
    if not rows:
        raise ArtifactError(
            f"no two criteria are active together in {_LEAST} of {len(chosen)} images; raise "
            "--images"
        )
    _write(rows, criteria)
    _print(rows)
    return FOLDER / "cosines.csv"


def _active(record: Record) -> list[str]:
    return [*record.positive, *record.negative]


def _in_order(record: Record, criteria: Tree) -> list[str]:
    active = set(_active(record))
    return [path for path in criteria.leaves() if path in active]


def _poles(
    records: Sequence[Record], prompts: Prompts, criteria: Tree
) -> dict[str, list[list[str]]]:
    """Prompts of each image: a row a role, with as many places as the most active image has."""
    most = max(len(_in_order(record, criteria)) for record in records)
    roles: dict[str, list[list[str]]] = {"good": [], "bad": []}
    for record in records:
        paths_of = _in_order(record, criteria)
        spare = [""] * (most - len(paths_of))
        for role, words in (("good", captions.winner), ("bad", captions.loser)):
            written = [prompts.write(record, words([path], criteria)) for path in paths_of]
            roles[role].append([*written, *spare])
    return roles


def _met(
    painter: Denoiser,
    encoded: Corpus,
    row: int,
    record: Record,
    criteria: Tree,
    profile: Profile,
    times: int,
) -> dict[Pair, float]:
    """Mean cosine of each two active criteria of one image, over its times."""
    active = _in_order(record, criteria)
    source = generator(profile.cpo.training.seed, row, "conflicts")
    drawn = draw_times(times, profile.cpo.training.times, source)
    total = torch.zeros(len(active), len(active), dtype=torch.float64)
    for time in drawn:
        good, bad = _predicted(painter, encoded, row, len(active), time, source)
        total += conflicts.cosines(good, bad).cpu() / times
    return {
        (one, other): total[place, later].item()
        for place, one in enumerate(active)
        for later, other in enumerate(active)
        if later > place
    }


def _predicted(
    painter: Denoiser,
    encoded: Corpus,
    row: int,
    count: int,
    time: torch.Tensor,
    source: torch.Generator,
) -> Iterator[torch.Tensor]:
    """θ1's predictions at one noisy latent under each good pole, then under each bad one."""
    device = next(painter.network.parameters()).device
    rows = torch.full((count,), row)
    clean = encoded.latents[rows]
    noise = torch.randn(clean[:1].shape, generator=source).expand_as(clean)
    clean, noise, time = clean.to(device), noise.to(device), time.expand(count).to(device)
    noisy = painter.process.add_noise(clean, noise, time)
    for role in ("good", "bad"):
        condition = encoded.condition(encoded.rows[role][row, :count], rows, device)
        yield painter.predict(noisy, time, condition)


def _write(rows: Sequence[Met], criteria: Tree) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["criterion", "other", "cosine", "low", "high", "images", "fights"])
    for row in rows:
        value = row.cosine
        ends = [f"{number:.4f}" for number in (value.estimate, value.low, value.high)]
        writer.writerow([*row.pair, *ends, value.count, row.fights])
    atomic.write(FOLDER / "cosines.csv", text.getvalue())
    seen = {path for row in rows for path in row.pair}
    shown = [path for path in criteria.leaves() if path in seen]
    picture = io.BytesIO()
    conflicts.heat_map(rows, shown).savefig(
        picture, format="png", dpi=110, metadata={"Software": None}
    )
    atomic.write(FOLDER / "cosines.png", picture.getvalue())


def _print(rows: Sequence[Met]) -> None:
    table = Table(title="Criteria that pull apart, and those that pull together")
    table.add_column("criterion")
    table.add_column("other")
    for heading in ("cosine", "95% interval", "images"):
        table.add_column(heading, justify="right")
    ends = rows if len(rows) <= 2 * _SHOWN else [*rows[:_SHOWN], *rows[-_SHOWN:]]
    for row in ends:
        value = row.cosine
        table.add_row(
            *row.pair,
            f"{value.estimate:+.2f}",
            f"{value.low:+.2f} … {value.high:+.2f}",
            str(value.count),
            style="bold" if row.fights else None,
        )
    console().print(table)
    fights = sum(row.fights for row in rows)
    sys.stdout.write(f"{fights} of {len(rows)} pairs fight\nTable       {FOLDER}/cosines.csv\n")
    sys.stdout.write(f"Heat map    {FOLDER}/cosines.png\n")
