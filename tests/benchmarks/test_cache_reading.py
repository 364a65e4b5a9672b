import subprocess
import sys
from pathlib import Path


def test_the_cache_is_filled_opened_in_another_process_and_read():
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.cache", "--entries", "20", "--batches", "2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    assert said[0].startswith("20 entries, 0.01 GB, filled in ")
    assert said[1].startswith("opened in ")
    assert "first reads, checked" in said[2]
    assert said[-1].startswith("memory of its own: ")
