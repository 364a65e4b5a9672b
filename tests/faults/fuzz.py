"""A process that reads bad input, case by case, while another one watches it.

``python -m tests.faults.fuzz TARGET ENGINE CASES SEED FOLDER``. Engines: ``torn`` (seeds with
their bytes changed), ``twisted`` (hypothesis: sound values with parts changed), ``guided``
(atheris: what reaches new branches is changed further). The case in hand stands in ``case``
and its number in ``count`` before it is read, so that whoever watches can tell which it was.
"""

import mmap
import os
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ENGINES = ("torn", "twisted", "guided")
# Begun, taken, refused, slowest in seconds of this process, MB before the first case.
_STATE = struct.Struct("qqqdq")
_CPU_SECONDS = 20.0  # that one case may take
_WALL_SECONDS = 120.0  # the same, waiting included; others use the machine, too
_LARGEST_GROWTH = 500  # MB above what the process had before its first case


@dataclass(frozen=True)
class Outcome:
    """What came of the cases of one process."""

    cases: int
    taken: int
    refused: int
    slowest: float
    growth: int  # MB of memory at most, above that before the first case


class Fault(AssertionError):  # noqa: N818
    """A case that was neither taken nor refused properly; it is kept in a file."""


def watched(target: str, engine: str, cases: int, seed: int, folder: Path) -> Outcome:
    """Let a process read cases; stop it where one takes too long or too much memory.

    Raises:
        Fault: A case did; or it raised what nobody can act upon.
    """
    state = folder / "count"
    state.write_bytes(bytes(_STATE.size))
    log = folder / "log"
    words = [sys.executable, "-m", "tests.faults.fuzz", target, engine, str(cases), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*words, str(folder)],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
    try:
        wrong, growth = _watch(process, state)
    finally:
        process.kill()
        process.wait()
    begun, taken, refused, slowest, _ = _STATE.unpack(state.read_bytes())
    if wrong or process.returncode or begun != taken + refused:
        kept = ROOT / "artifacts" / "faults" / f"case-{target.replace(' ', '-')}-{engine}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes((folder / "case").read_bytes() if (folder / "case").exists() else b"")
        said = log.read_text(errors="replace")[-4000:]
        why = wrong or f"exit code {process.returncode}"
        raise Fault(f"{target}, {engine}, case {begun}: {why}; it is {kept}\n{said}")
    return Outcome(begun, taken, refused, slowest, growth)


def _watch(process: "subprocess.Popen[bytes]", state: Path) -> tuple[str | None, int]:
    """Return what went wrong, if anything, and by how many MB the process grew."""
    one = psutil.Process(process.pid)
    growth = last = 0
    since = cpu = 0.0
    while process.poll() is None:
        time.sleep(0.1)
        try:
            used, memory = one.cpu_times(), _memory(process.pid, "VmHWM")
        except (psutil.Error, OSError, IndexError):
            break
        count, *_, before = _STATE.unpack(state.read_bytes())
        now, busy = time.monotonic(), used.user + used.system
        if count != last or count == 0:
            last, since, cpu = count, now, busy
        if count:
            growth = max(growth, memory - before)
        if growth > _LARGEST_GROWTH:
            return f"it took {growth} MB", growth
        if count and (busy - cpu > _CPU_SECONDS or now - since > _WALL_SECONDS):
            return f"it took more than {busy - cpu:.0f} s", growth
    return None, growth


def _memory(process: int | str, name: str) -> int:
    """MB that a process has (VmRSS), or had at most (VmHWM)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split(f"{name}:")[1].split()[0]) // 1024


class _Reader:
    """Reads cases one by one, and keeps count where the watcher sees it."""

    def __init__(self, name: str, folder: Path) -> None:
        from tests.faults import targets

        self.target = targets.TARGETS[name]
        self._work = folder / "work"
        self._work.mkdir(exist_ok=True)
        with (folder / "count").open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), _STATE.size)
        self._case = (folder / "case").open("w+b", buffering=0)
        self.begun = self._taken = self._refused = 0
        self._slowest = 0.0
        Path("/proc/self/clear_refs").write_text("5")  # what it has is the most it had
        self._before = _memory("self", "VmRSS")

    def read(self, case: bytes) -> None:
        os.pwrite(self._case.fileno(), case, 0)
        os.ftruncate(self._case.fileno(), len(case))
        self.begun += 1
        self._note()
        start = time.process_time()
        taken = self.target.check(case, self._work)
        self._slowest = max(self._slowest, time.process_time() - start)
        self._taken += taken
        self._refused += not taken
        self._note()

    def _note(self) -> None:
        values = (self.begun, self._taken, self._refused, self._slowest, self._before)
        self._state[:] = _STATE.pack(*values)


def _torn(reader: _Reader, cases: int, seed: int) -> None:
    from tests.faults import mutations

    for _, case in zip(range(cases), mutations.torn(reader.target.seeds(), seed), strict=False):
        reader.read(case)


def _twisted(reader: _Reader, cases: int, seed: int) -> None:
    import hypothesis
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.faults import mutations

    target = reader.target
    assert target.value is not None
    value = target.value()

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,  # who watches has one
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations.twisted(value))
    def run(twisted: object) -> None:
        reader.read(target.write(twisted))

    run()


def _guided(name: str, folder: Path, cases: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(
        include=[
            "atelier.config.profile",
            "atelier.reading",
            "atelier.images",
            "atelier.criteria",
            "yaml",
        ]
    ):
        reader = _Reader(name, folder)
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, case in enumerate(reader.target.seeds()):
        if len(case) <= 2**16:
            (seeds / f"{number:04}").write_bytes(case)
    options = [
        f"-runs={cases}",
        f"-seed={seed}",
        "-max_len=65536",
        "-timeout=120",
        "-verbosity=0",
    ]
    options += [f"-artifact_prefix={folder}/", "-rss_limit_mb=0", str(seeds)]
    atheris.Setup(["fuzz", *options], reader.read)
    atheris.Fuzz()


def main(name: str, engine: str, cases: str, seed: str, where: str) -> None:
    """Read the cases."""
    folder = Path(where)
    if engine == "guided":
        _guided(name, folder, int(cases), int(seed))
        return
    read = {"torn": _torn, "twisted": _twisted}[engine]
    read(_Reader(name, folder), int(cases), int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
