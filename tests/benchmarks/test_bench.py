import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "training": 11, "sampling": 3, "annotation": 3, "caching": 6, "starting": 7, "scaling": 5,
    "planning": 6,
}  # fmt: skip


def _bench(document, *words):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--size", "tiny", "--document", document, *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _tables(document):
    found, name = {}, None
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("<!-- bench: "):
            name = line.removeprefix("<!-- bench: ").removesuffix(" -->")
            found[name] = []
        elif line == "<!-- end -->":
            name = None
        elif name:
            found[name].append([cell.strip() for cell in line.split("|")[1:-1]])
    return found


SHOWN = """
import sys
from pathlib import Path
from benchmarks import __main__ as bench, document
from benchmarks.lines import Goal, Line

def line(what, ratio, note=""):
    goal = Goal("ratio", "≥", 0.8)
    return Line("caching", what, 100 * ratio, "MB/s", "disk", 100.0, ratio, goal, note=note)

file = Path(sys.argv[1])
file.write_text(document.table([line("again", 0.9, "3 files"), line("first", 0.5)]))
before = document.former(file)
"""


def test_a_goal_that_was_met_before_and_is_missed_now_is_named(tmp_path):
    code = SHOWN + (
        "bench._show([line('again', 0.7, '4 files'), line('first', 0.4)], before, 'Now.')\n"
        "bench._show([line('again', 0.85), line('another', 0.4)], before, 'Now.')\n"
    )
    words = [sys.executable, "-c", code, tmp_path / "performance.md"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "ratio before" in said
    assert said.count("Met in the table before, and missed now:") == 1
    # The first was missed before, too.
    assert "missed now:\n  again: 0.7, before 0.9\n  " in said
    assert said.endswith("1 of 2 goals met. Now.\n")
    assert "new" in said


def test_no_two_lines_of_the_document_are_taken_for_the_same():
    document = ROOT / "docs" / "performance.md"
    code = (
        "import sys; from pathlib import Path; from benchmarks import document; "
        "print(len(document.former(Path(sys.argv[1]))))"
    )
    words = [sys.executable, "-c", code, document]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    tables = _tables(document).values()
    rows = [row for one in tables for row in one if len(row) == 6]
    rows = [row for row in rows if row[-1] in {"met", "not met", "–"} and row[0] != "what"]
    assert int(found) == len(rows) > 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        ["training", "sampling", "annotation", "caching"],
        ["starting"],  # whole commands, and DVC
        ["scaling"],
    ],
)
def test_each_line_is_measured_printed_and_written_at_a_tiny_size(tmp_path, sections):
    document = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", document)
    before = _tables(document)

    said = _bench(document, "--only", *sections)

    tables = _tables(document)
    assert set(tables) == {*SECTIONS, "conditions", "scale", "gpu_step", "gpu_counts"}
    for name in sections:
        heads, _, *rows = tables[name]
        assert heads == [
            "what", "measured", "against, in the same run", "ratio", "goal", "met",
        ]  # fmt: skip
        assert len(rows) == SECTIONS[name]
        for row in rows:
            # An exponent, fitted through tiny sizes on a busy machine, may be below 0.
            assert float(row[3]) > 0 or (name == "scaling" and math.isfinite(float(row[3])))
            assert (row[4] == "–") == (row[5] == "–")
            assert row[5] in {"met", "not met", "–"}
    for name in set(tables) - set(sections):
        assert tables[name] == before[name]  # what was not measured stays
    held = sum(row[5] != "–" for name in sections for row in tables[name][2:])
    assert "Against peers and limits" in said
    assert f"of {held} goals" in said


def test_plans_are_written_from_counts(tmp_path):
    document = tmp_path / "performance.md"
    shutil.copy(ROOT / "docs" / "performance.md", document)

    said = _bench(document, "--only", "planning")

    heads, _, *rows = _tables(document)["planning"]
    assert heads[2:5] == ["10,277 on 1", "10,277 on 8", "10,277 on 64"]
    assert len(rows) == SECTIONS["planning"]
    for row in rows:
        assert float(row[1]) > 0
        one, eight = (float(row[at].removesuffix(" h").replace(",", "")) for at in (2, 3))
        assert one == pytest.approx(8 * eight, rel=0.02)
    assert rows[0][0] in said
