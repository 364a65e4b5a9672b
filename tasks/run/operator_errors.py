"""Ends of commands: errors as one paragraph; Ctrl-C and SIGTERM.

An ``AtelierError`` is a mistake that an operator can fix: it is printed without a traceback
and the exit code is 2. Ctrl-C gives exit code 130.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Print an ``AtelierError`` and exit; let SIGTERM unwind the stack, so that runs end."""
    from atelier.errors import AtelierError

    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except AtelierError as error:
        from tasks.run import launch

        launch.let_the_first_speak()
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on from the last checkpoint.\n")
        raise SystemExit(130) from None


def _stop(number: int, frame: object) -> NoReturn:
    del frame
    raise SystemExit(128 + number)
