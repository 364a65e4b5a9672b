import psutil
import pytest

from flows.live import plans
from tasks.tracking import run_record

RUN = "host/7/1764"


@pytest.fixture
def run(repository):
    """A run of the toy repository that this process is: planned, nothing has run yet."""
    run_record.begin(RUN, psutil.Process(), repository)
    run_record.note(RUN, command=["dvc", "repro"])
    plans.look(RUN)
    return RUN
