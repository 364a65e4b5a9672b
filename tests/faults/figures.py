"""What the fault tests measured, and docs/reliability.md written from it.

A test says each figure once (the fixture ``figure``); it becomes a line of a JSONL file named
after the test, in ``FOLDER``. ``python tests/faults/figures.py`` writes the page. A section of
which nothing was measured stays as it was, so that a part of the tests can be run alone.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "artifacts" / "faults"
PAGE = ROOT / "docs" / "reliability.md"
TITLE = """# What was broken on purpose, and what came of it

Written by `make faults`, which breaks a small pipeline of the real stages and measures; no
number here was typed by hand. A fault that was found on the way has a regression test in the
ordinary suite and a line in [log.md](log.md).
"""
SECTIONS = {
    "Kill": "`SIGKILL` to a stage with all its processes at moments drawn from a seed, "
    "relative to how long the undisturbed run took; then the same command again.",
    "Disk": "A disk that is full, read-only, or gives back other bytes than were written.",
    "Bad input": "What people and models write, at its worst.",
    "Servers away": "MLflow, Prefect, the model's endpoint, DVC's remote: down, slow, broken.",
    "Scale": "Many more pictures than the examples have. Up to a hundred thousand: "
    "[performance.md](performance.md), Scale.",
    "Security": "What must not get in, and what not out ([SECURITY.md](../SECURITY.md)).",
    "Determinism": "The same params, data and code twice. *The same bytes*, here and "
    "above, are those of one processor, one torch and one number of threads: there all "
    "that is random is a function of seed and step, and every sum is taken in the same "
    "order. Another processor has other kernels (torch, MKL and oneDNN choose them by its "
    "width and maker), and another number of threads may share a sum otherwise; floating "
    "point sums depend on their order, so last digits differ, and training hands them on. "
    "A training that goes on from a checkpoint on another processor, or with other "
    "threads, is therefore not bit-identical to the undisturbed run: it is as good a run, "
    "and a warning names both. What is counted, drawn or decided by rule (annotate, "
    "split, prompts, seeds) does not sum that way.",
}
WHOLE = FOLDER / "whole.json"  # of the last run of all these tests
_OLD_WHOLE = re.compile(r"^\*\*The whole of it\*\*.*\n", re.MULTILINE)
_HEAD = "| what was done | times | what came out |\n|---|--:|---|\n"


def write_down(test: str, section: str, did: str, times: int, came: str) -> None:
    """Add a line of ``test``; the first one of a run takes the place of a former run's."""
    assert section in SECTIONS, section
    FOLDER.mkdir(parents=True, exist_ok=True)
    line = {"section": section, "did": did, "times": times, "came": came}
    with _file(test).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def forget(test: str) -> None:
    """Remove what a former run of ``test`` measured."""
    _file(test).unlink(missing_ok=True)


def page(
    lines: list[dict[str, Any]], before: str, whole: Mapping[str, Any] | None = None
) -> str:
    """Return the page: measured sections anew, the others as they are in ``before``.

    Args:
        lines: What tests measured.
        before: The page so far.
        whole: What ``write_whole`` wrote, if all tests ran.
    """
    kept = dict(_sections(before))
    parts = [TITLE, *([_of(whole)] if whole else _OLD_WHOLE.findall(before))]
    for name, about in SECTIONS.items():
        mine = _added_up([line for line in lines if line["section"] == name])
        body = kept.get(name, "Not measured yet.\n")
        if mine:
            rows = (f"| {did} | {times:,} | {came} |\n" for (did, came), times in mine.items())
            body = f"{about}\n\n{_HEAD}{''.join(rows)}"
        parts.append(f"## {name}\n\n{body}")
    return "\n".join(parts)


def write_whole(outcomes: Mapping[str, int], seconds: float, workers: int) -> None:
    """Keep what a run of all these tests came to."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {"outcomes": dict(outcomes), "seconds": seconds, "workers": workers}
    whole["load"] = os.getloadavg()[2]
    WHOLE.write_text(json.dumps(whole) + "\n", encoding="utf-8")


def _of(whole: Mapping[str, Any]) -> str:
    came = ", ".join(f"{count} {what}" for what, count in whole["outcomes"].items() if count)
    return (
        f"**The whole of it** took {whole['seconds'] / 60:.0f} minutes with {whole['workers']} "
        f"processes on {os.cpu_count()} cores (mean load of the last quarter of an hour: "
        f"{whole['load']:.0f}): {came}.\n"
    )


def _added_up(lines: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """How often, by what was done and what came out: turns of one test are one row."""
    rows: dict[tuple[str, str], int] = {}
    for line in lines:
        key = line["did"], line["came"]
        rows[key] = rows.get(key, 0) + line["times"]
    return rows


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, body = part.split("\n", 1)
        yield name, body.strip() + "\n"


def _file(test: str) -> Path:
    return FOLDER / (re.sub(r"[^\w.-]+", "-", test).strip("-") + ".jsonl")


def _measured() -> list[dict[str, Any]]:
    files = sorted(FOLDER.glob("*.jsonl"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return [json.loads(line) for line in text.splitlines()]


if __name__ == "__main__":
    PAGE.write_text(
        page(
            _measured(),
            PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "",
            json.loads(WHOLE.read_text(encoding="utf-8")) if WHOLE.is_file() else None,
        ),
        encoding="utf-8",
    )
