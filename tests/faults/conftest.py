"""What the fault tests share: the marker, the figures, and a whole pipeline at toy size."""

import functools
import os
import time
from pathlib import Path

import pytest

from tests.faults import figures, workshop

HERE = Path(__file__).parent
BEGAN = time.monotonic()
RUN_ALWAYS = "test_figures.py"  # of the frame itself; a part of the ordinary suite


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.name != RUN_ALWAYS:
            item.add_marker("faults")
            item.add_marker("slow")  # so that every "not slow" leaves them out, too


def pytest_terminal_summary(terminalreporter, config):
    """Keep what a run of this whole folder came to, for docs/reliability.md."""
    asked = [Path(name).resolve() for name in config.args]
    if asked == [HERE] and not config.option.keyword:
        came = {
            what: len(terminalreporter.stats.get(what, ()))
            for what in ("passed", "failed", "error", "skipped")
        }
        workers = config.getoption("numprocesses", None) or 1
        figures.write_whole(came, time.monotonic() - BEGAN, workers)


@pytest.fixture
def figure(request):
    """``figure(section, did, times, came)``: a line for docs/reliability.md."""
    figures.forget(request.node.nodeid)
    return functools.partial(figures.write_down, request.node.nodeid)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all processes of a session see."""
    mine = tmp_path_factory.getbasetemp()
    return (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "shared"


@pytest.fixture(scope="session")
def undisturbed(shared):
    """The states of a toy pipeline that nothing disturbed (``workshop.undisturbed``)."""
    return workshop.undisturbed(shared)
