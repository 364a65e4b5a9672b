"""``python -m benchmarks.scale``: time and memory of the stages that touch every picture.

Makes corpora of tiny pictures, no two alike but for some near-duplicates, with recorded
judgements, and runs ``annotate``, ``split``, the cache's filling and opening, and the numbers
and page of ``evaluate`` on them, each in a process of its own. No network is run: what is
measured is what this code does for each picture.

``--up-to 1000000`` goes on to a million files. Where there is a count above 100,000, hashes of
views and features are drawn at every count, not computed from pixels, which would take most of
an hour and grows as the pictures do; everything else is done with them as always.
"""

import argparse
import contextlib
import datetime
import hashlib
import importlib
import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import psutil
import yaml

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from atelier.config.profile import Profile
    from atelier.criteria.near_duplicates import Hashes
    from atelier.images import Pixels
    from atelier.metrics.fid import Features

Stage = Literal["annotate", "split", "cache", "open", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)  # each reads what those before it left
COUNTS = (1_000, 10_000, 100_000)
READ = 100_000  # most pictures whose hashes and features are computed from their pixels
_ROOT = Path(__file__).parents[1]
_SIDE = 16  # pixels of a picture
_JUDGED = 5  # criteria of each picture
_NEAR = 100  # one picture in so many is nearly the one before it
_FLIPPED = (30, 76, 113, 44, 43, 45, 45, 47, 48, 48, 49)  # bits of a view unlike its whole
_PAINTED = 24  # pictures of each painter in the report
_BATCHES = 500  # read at random from the opened cache
_LEAST_SECONDS = 1.0  # of CPU: the cache is filled so often that no moment decides its figure
_SECONDS_BETWEEN_LOOKS = 0.05
_IMPORTED_BY: Mapping[Stage, Sequence[str]] = {  # in the midst of their work, for seconds
    "cache": ("atelier.training.cache",),
    "open": ("atelier.training.cache",),
    "report": (
        "tasks.report",
        "cleanfid.fid",
        "scipy.spatial.distance",
    ),
}


@dataclass(frozen=True)
class Measured:
    """What one stage cost at one count.

    Attributes:
        stage: Which.
        count: Pictures in ``data/``.
        seconds: Of the stage itself, imports left out.
        cpu_seconds: The same of all its processes together; it does not see who else is at
            work on the machine.
        start_mib: Memory of the process once it had imported everything.
        peak_mib: Most memory that it and its workers held at once.
    """

    stage: Stage
    count: int
    seconds: float
    cpu_seconds: float
    start_mib: float
    peak_mib: float


def make(folder: Path, count: int) -> None:
    """Put a corpus of ``count`` pictures, its judgements and its params into ``folder``."""
    from atelier.criteria.tree import parse

    (folder / "data").mkdir(parents=True)
    (folder / "labels").mkdir()
    shutil.copytree(_ROOT / "params/criteria", folder / "params/criteria")
    (folder / "params/profile.yaml").write_text("profile: scale\n", encoding="utf-8")
    text = yaml.safe_dump(_profile(), sort_keys=False)
    (folder / "params/scale.yaml").write_text(text, encoding="utf-8")
    criteria = list(parse(folder / "params/criteria/starter.yaml").leaves())
    with (
        (folder / "data/captions.csv").open("w", encoding="utf-8") as captions,
        (folder / "labels/judgements.jsonl").open("w", encoding="utf-8") as judgements,
    ):
        captions.write("file,caption\n")
        for number, picture in enumerate(_pictures(count)):
            file = f"{number // 1000:03}/{number:06}.png"
            if number % 1000 == 0:
                (folder / "data" / file).parent.mkdir()
            (folder / "data" / file).write_bytes(picture)
            captions.write(f'{file},"a seascape in blue, number {number}"\n')
            judgements.writelines(_judgements(picture, number, criteria))


def measure(
    stage: Stage, folder: Path, *, count: int, cores: int, drawn: bool = False
) -> Measured:
    """Run one stage in a process of its own, and watch it.

    Args:
        stage: Those before it must have run in this folder.
        folder: As ``make`` left it.
        count: Its pictures.
        cores: CPU cores that the stage may use.
        drawn: Draw hashes and features.
    """
    words = [sys.executable, "-m", "benchmarks.scale", "--run", stage, "--folder", str(folder)]
    words += ["--drawn"] if drawn else []
    python = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [*words, "--cores", str(cores)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": python, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = _Peak(process.pid)
    with process, peak:
        said, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{stage} at {count} pictures failed:\n{complaint[-3000:]}")
    found = json.loads(said.splitlines()[-1])
    return Measured(stage=stage, count=count, peak_mib=peak.mib, **found)


def exponent(few: Measured, many: Measured) -> float:
    """Return ``p`` if work grows as ``count ** p`` between two measurements."""
    return math.log(many.cpu_seconds / few.cpu_seconds) / math.log(many.count / few.count)


def table(rows: Sequence[Measured]) -> str:
    """Return what was measured as a Markdown table, a line a stage."""
    counts = sorted({row.count for row in rows})
    found = {(row.stage, row.count): row for row in rows}
    head = [f"{count:,}" for count in counts]
    lines = [
        "| stage | " + " | ".join(f"{n} pictures" for n in head) + " | exponent |",
        "|---|" + "---|" * (len(counts) + 1),
    ]
    for stage in dict.fromkeys(row.stage for row in rows):
        cells = [
            f"{found[stage, n].seconds:.1f} s, {found[stage, n].peak_mib:,.0f} MiB"
            for n in counts
        ]
        grown = (
            f"{exponent(found[stage, counts[-2]], found[stage, counts[-1]]):.2f}"
            if len(counts) > 1
            else "–"
        )
        lines.append(f"| {stage} | " + " | ".join(cells) + f" | {grown} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Measured], file: Path) -> None:
    """Draw seconds of CPU and memory against the count, both axes logarithmic for time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    counts = sorted({row.count for row in rows})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for stage in dict.fromkeys(row.stage for row in rows):
        own = sorted((row for row in rows if row.stage == stage), key=lambda row: row.count)
        grown = f" (n^{exponent(own[-2], own[-1]):.2f})" if len(own) > 1 else ""
        across = [row.count for row in own]
        left.plot(across, [row.cpu_seconds for row in own], "o-", label=f"{stage}{grown}", ms=4)
        right.plot(across, [row.peak_mib for row in own], "o-", label=stage, ms=4)
    first = min(row.cpu_seconds for row in rows)
    straight = [first * n / counts[0] for n in counts]
    left.plot(counts, straight, ":", color="0.6", label="proportional")
    titles = ("seconds of CPU, all processes", "MiB at most, all processes")
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("pictures")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={"Software": None})
    plt.close(figure)


class _Peak:
    """The most memory that a process and its children hold at once, by looking often."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            with contextlib.suppress(psutil.Error):
                family = [self._process, *self._process.children(recursive=True)]
                self.mib = max(self.mib, sum(map(_mib, family)))


def _mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def _profile() -> dict[str, Any]:
    """The starter's settings for small pictures, with everything asked that grows."""
    values: dict[str, Any] = yaml.safe_load(
        (_ROOT / "params/starter.yaml").read_text(encoding="utf-8")
    )
    values["model"]["pixels"] = _SIDE
    values["annotate"] |= {
        "annotator": "recorded",
        "recorded": ["labels/judgements.jsonl"],
        "smallest_side_pixels": _SIDE,
    }
    values["split"]["near_duplicate_bits"] = 36
    values["evaluate"]["metrics"] = ["fid", "kid", "vendi", "memorisation"]
    return values


def _pictures(count: int) -> Iterator[bytes]:
    """PNG files of noise; some differ from the one before in a single value."""
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    for number in range(count):
        if number % _NEAR == _NEAR - 1:
            pixels = pixels.copy()
            pixels[0, 0, 0] ^= 1
        else:
            pixels = source.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
        yield _png(pixels)


def _png(pixels: "Pixels") -> bytes:
    """Written by hand: a hundred thousand of them in seconds."""
    rows = np.zeros((_SIDE, 1 + _SIDE * 3), np.uint8)  # a row begins with its filter, 0
    rows[:, 1:] = pixels.reshape(_SIDE, -1)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def _judgements(picture: bytes, number: int, criteria: Sequence[str]) -> Iterator[str]:
    image = hashlib.sha256(picture).hexdigest()
    for place in range(_JUDGED):
        criterion = criteria[(number + place) % len(criteria)]
        pole = "negative" if (number + place) % 3 == 0 else "positive"
        yield (
            f'{{"image": "{image}", "criterion": "{criterion}", "pole": "{pole}", '
            '"annotator": "expert-1", "confidence": 1.0}\n'
        )


class _Unheard:
    """Stands where a tracked run would; MLflow is no part of what is measured."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...
    def picture(self, name: str, picture: "Image", step: int | None = None) -> None: ...
    def file(self, path: Path) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...


def _run(stage: Stage, folder: Path, cores: int, *, drawn: bool) -> None:
    """Run one stage here, and print what it took as a line of JSON."""
    os.chdir(folder)
    from atelier import parallel
    from atelier.config.profile import read_profile

    # Not by affinity: nobody knows here which cores are idle.
    parallel.cores = lambda: cores
    profile = read_profile(Path("params/scale.yaml"))
    work = _stages(drawn)[stage]
    for module in _IMPORTED_BY.get(stage, ()):
        importlib.import_module(module)
    began_with = _mib(psutil.Process())
    start, busy = time.perf_counter(), _cpu_seconds()
    work(profile)
    times = 1
    while stage == "cache" and _cpu_seconds() - busy < _LEAST_SECONDS:
        work(profile)
        times += 1
    took = {
        "seconds": (time.perf_counter() - start) / times,
        "cpu_seconds": (_cpu_seconds() - busy) / times,
        "start_mib": began_with,
    }
    sys.stdout.write(json.dumps(took) + "\n")


def _cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _stages(drawn: bool) -> "Mapping[Stage, Any]":
    from tasks import annotate, split

    unanswered: Any = _Unheard()
    if drawn:
        split._hash = _drawn_hashes
    return {
        "annotate": lambda profile: annotate.run(profile, unanswered),
        "split": lambda profile: split.run(profile, unanswered),
        "cache": _fill,
        "open": _open,
        "report": lambda profile: _report(profile, unanswered, drawn),
    }


def _drawn_hashes(data: Path, largest_pixels: int, file: str) -> "Hashes":
    """Hashes as those of noise: as far apart, near where pictures are. Runs in a worker."""
    del data, largest_pixels
    number = int(Path(file).stem)
    near = number % _NEAR == _NEAR - 1
    source = np.random.default_rng(number - near)
    wholes = np.repeat(source.integers(0, 2**64, (1, 2, 4), dtype=np.uint64), 12, axis=0)
    flips = source.random((12, 2, 256)) < np.array([0, *_FLIPPED])[:, None, None] / 256
    views = (wholes ^ np.packbits(flips, axis=2).view(np.uint64)).reshape(24, 4)
    views[:, 0] ^= np.uint64(near)
    return views


def _keys() -> list[str]:
    from atelier.criteria import annotations
    from tasks.run import paths

    rows = annotations.stream(paths.SPLIT / "train.jsonl", annotations.Record)
    return [row.image for row in rows]


def _fill(profile: "Profile") -> None:
    """As ``sft`` caches latents, without a codec; into an empty folder."""
    from atelier.reporting import silent
    from atelier.training import cache
    from tasks.run import paths

    del profile
    shutil.rmtree(paths.CACHE / "scale", ignore_errors=True)
    cache.filled(paths.CACHE / "scale", _keys(), _encode, batch=16, report=silent)


def _open(profile: "Profile") -> None:
    """As a training that goes on: open what is there, and read batches."""
    import torch

    from atelier.reporting import silent
    from atelier.training import cache
    from tasks.run import paths

    del profile
    keys = _keys()
    found = cache.filled(paths.CACHE / "scale", keys, _encode, batch=16, report=silent)
    column = cache.Column([(found, key) for key in keys], "latents")
    source = torch.Generator().manual_seed(0)
    for _ in range(_BATCHES):
        column[torch.randint(len(keys), (8,), generator=source)]


def _encode(keys: Sequence[str]) -> "dict[str, Tensor]":
    import torch

    source = torch.Generator().manual_seed(int(keys[0][:8], 16))
    return {"latents": torch.randn(len(keys), 4, 4, 4, generator=source)}


class _Averages:
    """Features without a network: means over a grid of 4 x 4, and their squares."""

    name = "averages"
    identity = "averages-1"

    def features(self, images: "Sequence[Pixels]") -> "Features":
        rows = [images[place].reshape(4, -1, 4, _SIDE // 4 * 3) for place in range(len(images))]
        means = np.array([row.mean(axis=(1, 3)).ravel() for row in rows]) / 255
        return np.concatenate([means, means**2], axis=1)


def _report(profile: "Profile", tracked: Any, drawn: bool) -> None:
    """As ``evaluate`` and ``report`` do, once pictures are painted and judged."""
    from atelier.criteria import tree
    from atelier.criteria.annotations import Record
    from atelier.criteria.stored.rows import StoredRows
    from atelier.metrics import comparison, suite
    from atelier.metrics.comparison import Painted, Real
    from tasks import report
    from tasks.evaluation import candidates, captions, pictures, scoring
    from tasks.evaluation.candidates import Candidate
    from tasks.evaluation.evaluated import Evaluated
    from tasks.reporting import report_page
    from tasks.run import paths

    criteria = tree.parse(paths.JUDGED_BY)
    test = captions.records(profile)
    learned = StoredRows(paths.SPLIT / "train.jsonl", Record)
    records = captions.painted(test, _PAINTED)
    network = _Averages()
    source = np.random.default_rng(1)
    names = (candidates.BASE, profile.cpo.featured)
    painted = {
        name: Painted(
            list(source.integers(0, 256, (len(records), _SIDE, _SIDE, 3), dtype=np.uint8)),
            [dict.fromkeys(criteria.leaves(), "negative") for _ in records],
            None,
        )
        for name in names
    }

    width = network.features(painted[names[0]].images[:1]).shape[1]

    def features(paintings: Sequence[Record]) -> "Features":
        if drawn:
            return source.random((len(paintings), width))
        return network.features(pictures.paintings(paintings, profile))

    real = Real(features(test), [not record.negative for record in test], features(learned))
    entries = suite.survey(
        profile.evaluate.metrics,
        paths.weights(),
        scoring.compute(profile.evaluate.scoring),
        features="starter",
    )
    found = Evaluated(
        annotator="expert-1",
        second=None,
        extractor=network.name,
        unseen=None,
        entries=entries,
        measured={
            name: comparison.measure(
                one.images,
                network.features(one.images),
                real,
                metrics=list(entries),
                captions=[record.caption for record in records],
                extractor=network.name,
                seed=profile.generate.seed,
            )
            for name, one in painted.items()
        },
        made_by={},
    )
    results = comparison.compare(
        painted,
        found.measured,
        criteria,
        scores={},
        captions=[record.caption for record in records],
        reference=candidates.BASE,
    )
    compared = [Candidate(name, name, "Paints noise.", None, None) for name in names]
    page = report_page.of(
        compared, found, painted, results, records, learned, criteria, profile
    )
    report.write(page, compared, found, profile, tracked)


def _in(folder: Path, counts: Sequence[int], cores: int, drawn: bool) -> Iterator[Measured]:
    """Measure every stage at every count; each corpus is removed when it has served."""
    for count in counts:
        corpus = folder / str(count)
        try:
            make(corpus, count)
            for stage in STAGES:
                yield measure(stage, corpus, count=count, cores=cores, drawn=drawn)
        finally:
            shutil.rmtree(corpus, ignore_errors=True)


def run(
    counts: Sequence[int], *, cores: int, folder: Path | None = None, kept: Path | None = None
) -> list[Measured]:
    """Measure every stage at every count, and say each figure as it is found.

    Args:
        counts: Pictures of each corpus.
        cores: CPU cores that a stage may use.
        folder: Where to put the corpora; None: where temporary files lie.
        kept: JSON file of figures, written after each stage; counts of which it has all
            stages are not measured again.
    """
    found = [] if kept is None or not kept.exists() else _whole(_kept(kept))
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        missing = [one for one in counts if one not in {row.count for row in found}]
        for row in _in(Path(temporary), missing, cores, max(counts) > READ):
            found.append(row)
            _say(
                f"{row.stage} of {row.count} pictures: {row.seconds:.2f} s "
                f"({row.cpu_seconds:.2f} s of CPU), {row.start_mib:.0f} MiB at first, "
                f"{row.peak_mib:.0f} MiB at most"
            )
            if kept is not None:
                text = json.dumps([asdict(one) for one in found], indent=2)
                kept.write_text(text + "\n", encoding="utf-8")
    return [row for row in found if row.count in counts]


def _kept(file: Path) -> list[Measured]:
    return [Measured(**one) for one in json.loads(file.read_text(encoding="utf-8"))]


def _whole(rows: Sequence[Measured]) -> list[Measured]:
    """Leave counts out whose last stage is missing: a corpus is not made twice for them."""
    done = {row.count for row in rows if row.stage == STAGES[-1]}
    return [row for row in rows if row.count in done]


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Measure, and print a table; draw and keep what was found where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument(
        "--up-to", type=int, help="powers of ten from 1,000 on, instead of --counts"
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to put the corpora; default: /tmp")
    parser.add_argument("--json", type=Path, help="file of the figures, which is gone on from")
    parser.add_argument("--plot", type=Path, help="where to put the drawing, a PNG")
    parser.add_argument("--document", type=Path, help="whose table and drawing are written")
    parser.add_argument("--run", choices=STAGES, help=argparse.SUPPRESS)  # of the child
    parser.add_argument("--drawn", action="store_true", help=argparse.SUPPRESS)  # as well
    options = parser.parse_args()
    if options.run is not None:
        _run(options.run, options.folder, options.cores, drawn=options.drawn)
        return
    counts = options.counts
    if options.up_to is not None:
        counts = [10**power for power in range(3, 10) if 10**power <= options.up_to]
    found = run(counts, cores=options.cores, folder=options.folder, kept=options.json)
    if options.plot is not None:
        plot(found, options.plot)
    if options.document is not None:
        _write(options.document, found)
    sys.stdout.write(table(found))


def _write(file: Path, found: Sequence[Measured]) -> None:
    """Put the lines and the drawing into a document, with the date."""
    from benchmarks import document, scaling

    text = document.table(scaling.grown(found))
    when = f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    plot(found, file.parent / "scale.png")
    shown = "![seconds and memory of each stage over the pictures](scale.png)"
    document.fill(file, {"scale": f"{when}\n\n{text}\n{shown}\n"})


if __name__ == "__main__":
    main()
