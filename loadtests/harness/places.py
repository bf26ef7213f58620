"""Where a server runs: on the loopback interface, or in a network namespace on the other side of a cable that is cut.

`with two_sides() as far` needs a network of its own, which nobody else sees and which ends with its processes: run the
command below `PRIVATE_NETWORK`. It needs no privileges where the kernel lets users make namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Everything inside ends with the command.
PRIVATE_NETWORK = (
    "unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
)  # fmt: skip
_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Place:
    """A host, and the network namespace that has it.

    Attributes:
        host: Address of the servers there.
        namespace: Name of the namespace; empty for that of this process.
    """

    host: str = "127.0.0.1"
    namespace: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """What is written before a command that is to run there."""
        return ("ip", "netns", "exec", self.namespace) if self.namespace else ()

    def connect(self, port: int, timeout_s: float = 1.0) -> socket.socket:
        """Connects to a server there, also while the cable is cut."""
        with self._inside():
            return socket.create_connection((self.host, port), timeout_s)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Puts this thread into the namespace; sockets made there stay there."""
        if not self.namespace:
            yield
            return
        with Path("/proc/thread-self/ns/net").open("rb") as own, (_NETNS / self.namespace).open("rb") as other:
            _set_namespace(other.fileno())
            try:
                yield
            finally:
                _set_namespace(own.fileno())


LOOPBACK = Place()


class Cable:
    """What connects this side with the other.

    Attributes:
        near: The place of this process.
        far: The place on the other side.
    """

    def __init__(self) -> None:
        self.near = Place("10.77.0.1")
        self.far = Place("10.77.0.2", "far")

    def cut(self) -> None:
        """Lets nothing pass in either direction: connections stay open and silent, and nobody is told."""
        self._isolate("on")

    def mend(self) -> None:
        """Lets everything pass again."""
        self._isolate("off")

    def _isolate(self, state: str) -> None:
        # Two isolated ports of a bridge do not hear each other, and their cables stay up.
        for port in ("near-port", "far-port"):
            _run("ip", "netns", "exec", "switch", "bridge", "link", "set", "dev", port, "isolated", state)


@contextlib.contextmanager
def two_sides() -> Iterator[Cable]:
    """Makes the other side, a switch and the cables, in a network of this process alone.

    Raises:
        OSError: A command failed; the message is its own.
    """
    _run("ip", "link", "set", "lo", "up")
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    for name in ("far", "switch"):
        _run("ip", "netns", "add", name)
    _run("ip", "-n", "switch", "link", "add", "bridge0", "type", "bridge")
    _run("ip", "-n", "switch", "link", "set", "bridge0", "up")
    cable = Cable()
    for side, place in (("near", cable.near), ("far", cable.far)):
        _run("ip", "link", "add", side, "type", "veth", "peer", "name", f"{side}-port", "netns", "switch")
        _run("ip", "-n", "switch", "link", "set", f"{side}-port", "master", "bridge0")
        _run("ip", "-n", "switch", "link", "set", f"{side}-port", "up")
        inside: tuple[str, ...] = ()
        if place.namespace:
            _run("ip", "link", "set", side, "netns", place.namespace)
            inside = ("-n", place.namespace)
        _run("ip", *inside, "address", "add", f"{place.host}/24", "dev", side)
        _run("ip", *inside, "link", "set", side, "up")
        _run("ip", *inside, "link", "set", "lo", "up")
    yield cable


def possible() -> bool:
    """Returns whether this machine lets a process have a network of its own."""
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [*PRIVATE_NETWORK, "sh", "-c", "ip link && bridge link"], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own commands
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _set_namespace(file: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
