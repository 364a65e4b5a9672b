"""Parallel map over several processes; results come in the order of the items."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from atelier.errors import ArtifactError

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW = 256  # up to this, starting processes costs more seconds than it saves
_CHUNK = 8  # items sent at once: what a worker holds when it is killed
_AHEAD = 32  # chunks that are sent for each worker, so that one slow item holds up no other

_function: Callable[[Any], Any]  # of a worker; set once, when it starts


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def results(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[Iterator[Result]]:
    """Yield the results of ``function``, in order; few items are done in this process.

    Workers end with this process, even if it is killed, and leave an interrupt to it.

    Args:
        function: Sent once to each worker, so it may carry much; must be picklable.
        items: Sent a few at a time.
        processes: Workers at most.

    Raises:
        ArtifactError: A worker was killed; raised by the iterator, naming the items that it
            may have been at.
    """
    if processes == 1 or len(items) <= _FEW:
        yield map(function, items)
        return
    # Not fork: a fork copies the locks that other threads of this process hold.
    pool = ProcessPoolExecutor(
        max_workers=min(processes, len(items) // _CHUNK),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(function,),
    )
    try:
        yield _survivors(_in_order(pool, items, processes), items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, items: Sequence[Item], processes: int
) -> Iterator[Any]:
    """Yield the results in order; few items are sent ahead, for a million fill the memory."""
    waiting: deque[Future[list[Any]]] = deque()
    for start in range(0, len(items), _CHUNK):
        waiting.append(pool.submit(_call, items[start : start + _CHUNK]))
        if len(waiting) > _AHEAD * processes:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _survivors(answers: Iterator[Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the results up to the one whose worker process was killed."""
    done = 0
    try:
        for done, answer in enumerate(answers, start=1):  # noqa: B007
            yield answer
    except BrokenProcessPool:
        busy = ", ".join(map(str, items[done : done + _CHUNK]))
        raise ArtifactError(
            f"a process was killed while it read one of {busy}, most often because memory ran "
            "out; lower annotate.largest_pixels, or remove the picture, and run again"
        ) from None


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Workers hold both ends of their queue, so they never see that a killed parent is gone.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _call(items: Sequence[Any]) -> list[Any]:
    return [_function(item) for item in items]
