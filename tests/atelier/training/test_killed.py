import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_random_steps_it_ends_bit_for_bit_the_same(tmp_path, family):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, "-m", "tests.atelier.training.killed", family, "20", str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    lines = done.stdout.splitlines()
    assert len(lines) == 20, done.stderr[-2000:]
    assert all(line.endswith("same True") for line in lines), done.stdout
    assert done.returncode == 0
