"""How long it takes until something happens: help, an up-to-date pipeline, a first step."""

import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import yaml

from benchmarks import base_loading
from benchmarks.lines import Goal, Line, Size, by_turns, taking

SECTION = "start"
_ROOT = Path(__file__).parents[1]
_ROUNDS: Mapping[Size, int] = {"full": 5, "tiny": 1}
_FILES: Mapping[Size, int] = {"full": 600, "tiny": 5}
_DRAWN = 48  # pictures of the corpus whose first step is waited for
_MARK = "first step: "
_STARTS: Mapping[Size, int] = {"full": 3, "tiny": 1}
_LIBRARIES = "import torch, peft; from diffusers import FluxPipeline, FluxTransformer2DModel"


def lines(size: Size) -> Iterator[Line]:
    """Measure seconds, and the memory that loading a base takes."""
    yield _help(size)
    yield _up_to_date(size)
    yield from _first_step(size)
    yield from base_loading.lines(SECTION, size)


def _help(size: Size) -> Line:
    def said() -> None:
        _python("-m", "cli", "--help")

    def typer() -> None:
        _python("-c", "import typer, typer.rich_utils")

    turns = by_turns(said, typer, rounds=_ROUNDS[size])
    return Line(
        SECTION, "`atelier --help`", turns.figure, "s",
        "Python that imports typer and no more", turns.reference, turns.ratio,
        Goal("figure", "≤", 0.5),
    )  # fmt: skip


def _up_to_date(size: Size) -> Line:
    """``dvc repro`` where nothing has changed, of dvc.yaml with stand-ins for its commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        _stand_in(folder)
        _files(folder / "data", _FILES[size])

        def repro() -> None:
            _dvc(folder, "repro", "-q")

        _dvc(folder, "init", "-q", "--no-scm")
        _dvc(folder, "config", "core.analytics", "false")
        repro()
        turns = by_turns(repro, lambda: _dvc(folder, "version"), rounds=_ROUNDS[size])
    return Line(
        SECTION, f"`dvc repro` of an up-to-date pipeline, {_FILES[size]} pictures",
        turns.figure, "s", "`dvc version`", turns.reference, turns.ratio,
        Goal("figure", "≤", 5.0), note="the DAG of dvc.yaml with stand-ins for its commands",
    )  # fmt: skip


def _copy(folder: Path) -> None:
    """What a clone has of inputs and code."""
    inputs = ("params", "labels", "loras", "certificates", "base/starter")
    for part in ("atelier", "tasks", *inputs, "dvc.yaml"):
        source, target = _ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _stand_in(folder: Path) -> None:
    """Let each stage's command write its outs and do nothing else."""
    script = folder / "stand_in.py"
    script.write_text(
        "import pathlib, sys\n"
        "for out in map(pathlib.Path, sys.argv[1:]):\n"
        "    out.parent.mkdir(parents=True, exist_ok=True)\n"
        "    if out.suffix:\n"
        "        out.write_text('{}')\n"
        "        continue\n"
        "    out.mkdir(exist_ok=True)\n"
        "    for number in range(50):\n"
        "        (out / f'{number}.json').write_text(str(number))\n",
        encoding="utf-8",
    )
    file = folder / "dvc.yaml"
    dag = yaml.safe_load(file.read_text(encoding="utf-8"))
    for stage in dag["stages"].values():
        listed = [*stage.get("outs", []), *stage.get("metrics", [])]
        outs = [one if isinstance(one, str) else next(iter(one)) for one in listed]
        stage["cmd"] = " ".join([sys.executable, "stand_in.py", *outs])
    dag.pop("plots", None)  # they are not looked at by repro
    file.write_text(yaml.safe_dump(dag, sort_keys=False), encoding="utf-8")


def _files(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(number.to_bytes(4, "big") * 5000)


def _first_step(size: Size) -> Iterator[Line]:
    """``python -m tasks sft`` on the starter, until its first step is taken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy(folder)
        _draw(folder / "data", size)
        for stage in ("annotate", "split"):
            _python("-m", "tasks", stage, cwd=folder)
        cold = _until_first_step(folder)
        starts, plain = [], []
        for _ in range(_STARTS[size]):
            starts.append(_until_first_step(folder))
            plain.append(taking(lambda: _python("-W", "ignore", "-c", _LIBRARIES)))
    totals = [sum(one.values()) for one in starts]
    total = statistics.median_low(totals)
    warm = starts[totals.index(total)]
    parts = ", ".join(f"{what} {seconds:.2g}" for what, seconds in warm.items())
    yield Line(
        SECTION, "from `python -m tasks sft` to its first step, everything encoded before",
        total, "s", "Python that imports torch, peft and FLUX's pipeline, and no more",
        statistics.median(plain),
        statistics.median(one / other for one, other in zip(totals, plain, strict=True)),
        Goal("figure", "≤", 5.0),
        note=f"seconds: {parts}",
    )  # fmt: skip
    first = sum(cold.values())
    yield Line(
        SECTION, f"the same where {_DRAWN} pictures and their prompts are encoded first",
        first, "s", "with everything encoded", total, first / total, None,
    )  # fmt: skip


def _draw(folder: Path, size: Size) -> None:
    from tasks.commands import data

    data.draw(folder, _DRAWN, seed=0)
    del size


def _until_first_step(folder: Path) -> dict[str, float]:
    said = _python("-m", "benchmarks.starting", cwd=folder)
    line = next(line for line in said.splitlines() if line.startswith(_MARK))
    found: dict[str, float] = json.loads(line.removeprefix(_MARK))
    return found


def _python(*words: str, cwd: Path = _ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "COLUMNS": "80"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _dvc(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "dvc", *words]
    subprocess.run(
        command, cwd=folder, capture_output=True, check=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )  # fmt: skip


class _Clock:
    """Seconds by name, from the start of the process on."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = psutil.Process().create_time()

    def mark(self, name: str) -> None:
        now = time.time()
        self.parts[name] = self.parts.get(name, 0) + now - self._last
        self._last = now

    def after(self, module: Any, function: str, name: str) -> None:
        """Mark ``name`` when a function of a module has returned."""
        own = getattr(module, function)

        def marked(*args: Any, **kwargs: Any) -> Any:
            self.mark("between")
            result = own(*args, **kwargs)
            self.mark(name)
            return result

        setattr(module, function, marked)


def _timed_command() -> None:
    """Be ``python -m tasks sft`` up to its first step, and print what took how long."""
    clock = _Clock()
    clock.mark("Python")
    command = importlib.import_module("tasks.__main__")
    stage = importlib.import_module("tasks.commands.stage")

    def imported(name: str) -> Any:
        module = importlib.import_module(name)
        clock.mark("imports")
        clock.after(module.loading, "load", "encoders")
        clock.after(module.encoded_dataset, "encode", "corpus")
        clock.after(module.adapters, "add", "network")
        module.trainer.loop.fit = _one_step(module.trainer.loop.fit, clock)
        return module

    stage.importlib = SimpleNamespace(import_module=imported)  # type: ignore[attr-defined]
    command.app(["sft"], prog_name="python -m tasks")


def _one_step(fit: Callable[..., Any], clock: _Clock) -> Callable[..., None]:
    def begun(*args: Any, **kwargs: Any) -> None:
        clock.mark("between")

        def report(done: int, values: Mapping[str, float]) -> None:
            del done, values
            clock.mark("step")
            sys.stdout.write(_MARK + json.dumps(clock.parts) + "\n")
            sys.stdout.flush()
            os._exit(0)  # the rest of the training is not waited for

        fit(*args, **kwargs | {"report": report})

    return begun


if __name__ == "__main__":
    _timed_command()
