import pytest
import torch

from atelier import out_of_memory
from atelier.errors import RoomError

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", FULL, ids=["cuda", "cpu", "python"])
def test_a_full_device_is_one_paragraph_with_the_cures_in_their_order(error):
    cures = ["a: 1", "b: 2"]

    with (
        pytest.raises(RoomError) as told,
        out_of_memory.explained("Scoring", cures, then="Parts are kept"),
    ):
        raise error

    said = str(told.value)
    assert said.startswith("Scoring needs more memory than its device has (")
    assert said.endswith("until it fits: a: 1; b: 2. Parts are kept")
    assert "\n" not in said


def test_another_error_stays_what_it_is():
    with (
        pytest.raises(RuntimeError, match="shapes differ"),
        out_of_memory.explained("Scoring", [], then=""),
    ):
        raise RuntimeError("shapes differ")
