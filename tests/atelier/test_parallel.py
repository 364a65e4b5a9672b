import math
import os

import pytest

from atelier import parallel
from atelier.errors import ArtifactError


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes):
    with parallel.results(math.isqrt, range(300), processes) as results:
        assert list(results) == [math.isqrt(number) for number in range(300)]


def test_a_worker_that_dies_names_what_it_may_have_been_at():
    with (
        pytest.raises(ArtifactError, match=r"read one of 0, 1, 2, .*remove the picture"),
        parallel.results(os._exit, range(300), 2) as results,
    ):
        list(results)


def test_no_more_cores_are_counted_than_may_be_used():
    assert 1 <= parallel.cores() <= (os.cpu_count() or 1)
