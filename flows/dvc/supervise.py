"""Process supervision: ``python -m flows.dvc.supervise -- command``, without orphans.

The command gets a session of its own, and its whole process group is ended when

* our standard input closes, because the parent process is gone, also by ``kill -9``,
* we get SIGTERM or SIGINT,
* ``--timeout`` seconds have passed, or nothing was printed for ``--silence`` seconds.

It sends SIGINT first, on which DVC releases its lock and a training writes its checkpoint;
remaining processes get SIGTERM, then SIGKILL. Exit code: the command's, 124 for too long or too
silent, 130 for stopped.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

TOO_LONG, STOPPED = 124, 130
_PATIENCE = {signal.SIGINT: 5.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}  # seconds after each


@dataclass
class _Watch:
    """Why the command should end, if it should, and when it last printed."""

    reason: str | None = None
    heard: float = field(default_factory=time.monotonic)

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason


def command(
    words: Sequence[str], *, timeout_seconds: float | None, silence_seconds: float | None
) -> list[str]:
    """Return the command that runs ``words`` supervised by a process of its own.

    Start it with a pipe as standard input and keep that open: closing it ends the command.
    """
    limits = []
    if timeout_seconds is not None:
        limits += ["--timeout", str(timeout_seconds)]
    if silence_seconds is not None:
        limits += ["--silence", str(silence_seconds)]
    return [sys.executable, "-m", "flows.dvc.supervise", *limits, "--", *words]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line's command to its end, or to ours."""
    options = _options(arguments)
    watch = _Watch()
    # Handlers before the child: what is handled here is the default again in the child, even
    # where a shell started us with SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watch.end("told to stop"))
    child = subprocess.Popen(
        options.command,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    threading.Thread(target=_await_parent, args=(watch,), daemon=True).start()
    pump = threading.Thread(target=_pump, args=(child, watch), daemon=True)
    pump.start()
    _await_end(child, watch, options.timeout, options.silence)
    if watch.reason:
        _end_group(child)
    pump.join(2)
    # Not sys.exit: a thread that waits for our standard input would hold it up.
    os._exit(_exit_code(child, watch))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.dvc.supervise")
    parser.add_argument("--timeout", type=float, help="seconds that the command may take")
    parser.add_argument("--silence", type=float, help="seconds without a line that it may take")
    parser.add_argument("command", nargs="+", help="after `--`")
    return parser.parse_args(arguments)


def _await_parent(watch: _Watch) -> None:
    while os.read(0, 4096):
        pass
    watch.end("its parent is gone, or stopped it")


def _pump(child: subprocess.Popen[bytes], watch: _Watch) -> None:
    assert child.stdout is not None
    # Chunks, not lines: a bar that redraws one line for hours is not silent.
    while chunk := os.read(child.stdout.fileno(), 65536):
        watch.heard = time.monotonic()
        try:
            _write(chunk)
        except OSError:
            watch.end("nobody reads it")
            return


def _write(chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(1, chunk) :]


def _await_end(
    child: subprocess.Popen[bytes],
    watch: _Watch,
    timeout: float | None,
    silence: float | None,
) -> None:
    started = time.monotonic()
    while child.poll() is None and not watch.reason:
        time.sleep(0.05)
        now = time.monotonic()
        if timeout is not None and now - started > timeout:
            watch.end(f"longer than {timeout:g} s")
        if silence is not None and now - watch.heard > silence:
            watch.end(f"silent for {silence:g} s")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    for number, patience in _PATIENCE.items():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not _group_lives(child):
                return
            time.sleep(0.05)


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
    child.poll()  # reaps it: a zombie would count as alive
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _exit_code(child: subprocess.Popen[bytes], watch: _Watch) -> int:
    if watch.reason is None:
        # A command killed by a signal has -9 here; a shell says 137.
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    with contextlib.suppress(OSError):
        os.write(2, f"supervise: ended the command: {watch.reason}\n".encode())
    return TOO_LONG if watch.reason.startswith(("longer", "silent")) else STOPPED


if __name__ == "__main__":
    main()
