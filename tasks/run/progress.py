"""Progress of long work: a bar with ETA on a terminal, otherwise a line now and then.

The line is read by people in logs and by the flows, which show it as a progress artifact::

    sft: step 40/300 · loss 0.12 · 3.1 images/s · ETA 1:10 · 1.2 GB
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from atelier.reporting import Report, silent
from tasks.run import machine
from tasks.tracking import run_record

_SECONDS_BETWEEN_LINES = 5.0
_VALUES_SHOWN = 3  # MLflow has them all


@contextlib.contextmanager
def bar(title: str, total: int, unit: str, *, each: int | None = None) -> Iterator[Report]:
    """Show how much of ``total`` is done; yields the callback that library code reports to.

    Of several processes that train together, the first one shows.

    Args:
        title: What is being done; one word or two.
        total: Steps in the whole work.
        unit: What one step is, in the plural, as ``images``.
        each: Units in a step of a training, whose memory is shown too; None elsewhere.
    """
    if not machine.speaks():
        yield silent
        return
    pace = _Pace(total, unit, each)
    console = Console(stderr=True)
    shown = _terminal(title, pace, console) if console.is_terminal else _lines(title, pace)
    record = run_record.bar(title, total, pace.rate, trains=each is not None)
    with shown as report:

        def both(done: int, values: Mapping[str, float]) -> None:
            report(done, values)
            record(done, values)

        yield both
    record(total, {})


def after(done: int, report: Report) -> Report:
    """Return a report that counts on from ``done``, for a part of a longer work."""
    return lambda more, values: report(done + more, values)


class _Pace:
    """What is done, at which rate, and when it will end."""

    def __init__(self, total: int, unit: str, each: int | None) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self.each = each
        self.started = time.monotonic()
        self._values: dict[str, float] = {}
        self._first: tuple[int, float] | None = None

    def update(self, done: int, values: Mapping[str, float]) -> None:
        # A resumed run reports step 201 first; counted from 0 it would look far too fast.
        if self._first is None and done:
            self._first = (done, time.monotonic())
        self.done = done
        self._values = dict(values) or self._values  # most steps report none

    def rate(self) -> float | None:
        """Return steps a second since the first report, once there is a second one."""
        if self._first is None or self.done == self._first[0]:
            return None
        done, since = self._first
        return (self.done - done) / max(time.monotonic() - since, 1e-6)

    def tail(self) -> str:
        """Return the latest values, the rate, the ETA and the memory, joined by dots."""
        parts = [f"{name} {value:.4g}" for name, value in self._values.items()]
        parts = parts[:_VALUES_SHOWN]
        rate = self.rate()
        if rate:
            parts.append(f"{rate * (self.each or 1):.3g} {self.unit}/s")
            parts.append(f"ETA {_clock((self.total - self.done) / rate)}")
            if self.each is not None:
                parts.append(f"{machine.used() / 1e9:.1f} GB")
        return " · ".join(parts)

    def line(self) -> str:
        """Return ``step 40/300 · …``."""
        return " · ".join(filter(None, [f"step {self.done}/{self.total}", self.tail()]))


@contextlib.contextmanager
def _terminal(title: str, pace: _Pace, console: Console) -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[line]}"),
    )
    with Progress(*columns, console=console) as live:
        row = live.add_task(title, total=pace.total, line=pace.line())

        def report(done: int, values: Mapping[str, float]) -> None:
            pace.update(done, values)
            live.update(row, completed=done, line=pace.line())

        yield report


@contextlib.contextmanager
def _lines(title: str, pace: _Pace) -> Iterator[Report]:
    spoken = pace.started
    begun = False

    def report(done: int, values: Mapping[str, float]) -> None:
        nonlocal begun, spoken
        pace.update(done, values)
        # The first units of large models take minutes, so work says that it has begun.
        first = not begun and done == 0 and pace.total > 0
        begun = True
        if first or time.monotonic() - spoken >= _SECONDS_BETWEEN_LINES:
            spoken = time.monotonic()
            say(f"{title}: {pace.line()}")

    yield report
    pace.done = pace.total  # what was found finished is never reported
    took = _clock(time.monotonic() - pace.started)
    say(f"{title}: step {pace.done}/{pace.total} · took {took}")


def say(text: str) -> None:
    """Print a line beside the bars."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
