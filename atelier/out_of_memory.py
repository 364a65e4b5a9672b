"""Out-of-memory errors of a device, told as one paragraph with the cures that help there."""

import contextlib
from collections.abc import Iterator, Sequence

from atelier.errors import RoomError

# torch raises a RuntimeError on a CPU, where the system does not kill the process instead.
_CPU_IS_FULL = ("can't allocate memory", "not enough memory")


@contextlib.contextmanager
def explained(what: str, cures: Sequence[str], *, then: str) -> Iterator[None]:
    """Say what to change where the work inside needs more memory than its device has.

    Args:
        what: The work, as the sentence's subject.
        cures: Settings that make it smaller, in the order in which to try them.
        then: What is kept, or what to do afterwards.

    Raises:
        RoomError: It has too little.
    """
    try:
        yield
    except MemoryError as error:
        raise _told(what, cures, then, error) from None
    except RuntimeError as error:
        if not _is_full(error):
            raise
        raise _told(what, cures, then, error) from None


def _is_full(error: RuntimeError) -> bool:
    import torch

    full = isinstance(error, torch.OutOfMemoryError)
    return full or any(words in str(error) for words in _CPU_IS_FULL)


def _told(what: str, cures: Sequence[str], then: str, error: Exception) -> RoomError:
    said = str(error).strip().splitlines()
    return RoomError(
        f"{what} needs more memory than its device has "
        f"({said[0] if said else 'out of memory'}). Change, in this order, until it fits: "
        f"{'; '.join(cures)}. {then}"
    )
