"""Hosts of a test: network namespaces with a cable between them, which can be cut."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_NETWORK = "10.77.93"  # of the cable; nothing else is reached from a host
_ETC = Path("/etc/netns")  # where `ip netns exec` finds a namespace's own /etc/hosts


class Hosts:
    """Two hosts, ``node0`` and ``node1``, each with an address and a name of its own."""

    names = ("node0", "node1")

    def __init__(self):
        self._spaces = [f"atelier-{os.getpid()}-{name}" for name in self.names]

    def prefix(self, number):
        """The words before a command that run it on a host."""
        into = ["ip", "netns", "exec", self._spaces[number], "unshare", "--uts"]
        return [*into, "sh", "-c", 'hostname "$0" && exec "$@"', self.names[number]]

    def cut(self):
        """Pull the cable out: packets vanish, and nobody is told."""
        _ip("-n", self._spaces[1], "link", "set", "eth0", "down")

    def mend(self):
        _ip("-n", self._spaces[1], "link", "set", "eth0", "up")

    def up(self):
        known = "".join(f"{_NETWORK}.{n + 1} {name}\n" for n, name in enumerate(self.names))
        ends = [f"a{os.getpid()}-{number}" for number in range(2)]
        for space in self._spaces:
            _ip("netns", "add", space)
            (_ETC / space).mkdir(parents=True)
            (_ETC / space / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (space, end) in enumerate(zip(self._spaces, ends, strict=True)):
            _ip("link", "set", end, "netns", space)
            _ip("-n", space, "link", "set", end, "name", "eth0")
            _ip("-n", space, "address", "add", f"{_NETWORK}.{number + 1}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", space, "link", "set", link, "up")

    def down(self):
        """Remove both, with what still runs in them."""
        for space in self._spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                pids = _ip("netns", "pids", space).split()
                subprocess.run(["kill", "-9", *pids], check=False) if pids else None
                _ip("netns", "delete", space)
            shutil.rmtree(_ETC / space, ignore_errors=True)


def _ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def hosts():
    """Two hosts; skipped where this user may not make any."""
    made = Hosts()
    try:
        made.up()
    except (OSError, subprocess.CalledProcessError) as error:
        made.down()
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield made
    made.down()
