import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from flows.dvc import supervise

# A command with a child of its own; prints both numbers.
FAMILY = [
    sys.executable,
    "-c",
    "import os, subprocess\n"
    "child = subprocess.Popen(['sleep', '300'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "child.wait()",
]
# Starts that command supervised, hands its line on, and waits to be killed.
PARENT = """
import subprocess, sys, time
pipe = subprocess.PIPE
process = subprocess.Popen(sys.argv[1:], stdin=pipe, stdout=pipe, text=True)
print(process.stdout.readline(), flush=True)
time.sleep(300)
"""


def supervised(words, timeout=None, silence=None):
    return supervise.command(words, timeout_seconds=timeout, silence_seconds=silence)


def start(words, **limits):
    return subprocess.Popen(
        supervised(words, **limits),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """Its exit code and the rest of what it printed."""
    with process:
        rest = process.stdout.read()
    return process.returncode, rest


def gone(*numbers, within_seconds=8):
    end = time.monotonic() + within_seconds
    while time.monotonic() < end:
        if not any(map(alive, numbers)):
            return True
        time.sleep(0.05)
    return False


def alive(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_and_exit_code_are_the_commands():
    code, said = finish(start(["sh", "-c", "echo painted; echo badly >&2; exit 7"]))

    assert (code, said) == (7, "painted\nbadly\n")


def test_when_the_parent_is_killed_nobody_is_left():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *supervised(FAMILY)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        family = [int(word) for word in parent.stdout.readline().split()]
        assert all(map(alive, family))

        parent.kill()

        assert gone(*family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_takes_the_whole_group_along(number):
    process = start(FAMILY)
    family = [int(word) for word in process.stdout.readline().split()]

    process.send_signal(number)
    code, said = finish(process)

    assert code == supervise.STOPPED
    assert said.endswith("supervise: ended the command: told to stop\n")
    assert gone(*family, within_seconds=10)


def test_a_closed_standard_input_means_stop():
    process = start(FAMILY)
    family = [int(word) for word in process.stdout.readline().split()]

    process.stdin.close()

    assert process.wait(10) == supervise.STOPPED
    process.stdout.close()
    assert gone(*family, within_seconds=10)


def test_one_that_ignores_the_first_signal_gets_the_next():
    process = start(["sh", "-c", "trap '' INT; echo $$; sleep 300"])
    number = int(process.stdout.readline())

    process.terminate()

    assert finish(process)[0] == supervise.STOPPED
    assert gone(number, within_seconds=10)


def test_silence_is_not_waited_for_for_ever():
    started = time.monotonic()

    code, said = finish(start(["sh", "-c", "echo one; sleep 300"], silence=1))

    assert code == supervise.TOO_LONG
    assert said == "one\nsupervise: ended the command: silent for 1 s\n"
    assert time.monotonic() - started < 60


def test_one_that_keeps_talking_is_not_silent():
    code, said = finish(
        start(["sh", "-c", "for i in 1 2 3 4; do echo; sleep .5; done"], silence=1)
    )

    assert (code, said) == (0, "\n\n\n\n")


def test_a_timeout_ends_even_one_that_talks():
    code, said = finish(start(["sh", "-c", "while :; do echo .; sleep .2; done"], timeout=1))

    assert code == supervise.TOO_LONG
    assert said.endswith("supervise: ended the command: longer than 1 s\n")


def test_a_sigint_ignored_by_our_starter_still_reaches_the_command():
    # As a background job of a shell script has it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(
            [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(300)"]
        )
    finally:
        signal.signal(signal.SIGINT, before)
    process.stdout.readline()

    os.kill(process.pid, signal.SIGTERM)

    assert "KeyboardInterrupt" in finish(process)[1]
