"""A TCP proxy in front of a server: a network that can be made to fail under open connections."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator

# SO_LINGER of no time: closing sends a reset, and nothing that is left.
_RESET = struct.pack("ii", 1, 0)

_Pieces = queue.SimpleQueue[tuple[float, bytes]]


class Proxy:
    """Forwards to a port of this machine.

    Attributes:
        delay_s: Delay of every piece of a reply; later pieces are not delayed twice.
        silent: Nothing passes in either direction and connections stay open, new ones included; a connection that lost
            a piece stays silent.
        cutting: Half of a reply passes, and then the connection is closed.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay_s = 0.0
        self.silent = False
        self.cutting = False
        self._open: set[socket.socket] = set()
        self._abandoned: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._refusing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open(self) -> int:
        """Number of forwarded connection ends."""
        return len(self._open)

    def refuse(self) -> None:
        """Closes open connections and refuses new ones."""
        self._refusing = True
        for connection in list(self._open):
            _end(connection)

    def accept(self) -> None:
        """Accepts connections again."""
        self._refusing = False

    def reset(self) -> None:
        """Resets open connections, as a firewall would; new ones are forwarded."""
        connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for connection in connections:
            _end(connection, socket.SHUT_RD)  # a FIN to the peer would come before the reset

    def abandon(self) -> None:
        """Forwards nothing more on open connections, which stay open; new ones are forwarded.

        This is what happens when an address moves to another machine without notice.
        """
        self._abandoned |= self._open

    def lead_to(self, target: int) -> None:
        """Forwards new connections to another port, as when a name gets a new address; open ones stay."""
        self._target = target

    def close(self) -> None:
        """Closes the proxy and its connections."""
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._refusing:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    pieces: _Pieces = queue.SimpleQueue()
                    for work in (self._take, self._give):
                        threading.Thread(target=work, args=(source, sink, pieces, source is far), daemon=True).start()

    def _take(self, source: socket.socket, sink: socket.socket, pieces: _Pieces, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                if self.silent:
                    self._abandoned |= {source, sink}
                if source not in self._abandoned:
                    pieces.put((time.monotonic() + (self.delay_s if replies else 0.0), piece))
        pieces.put((0.0, b""))

    def _give(self, source: socket.socket, sink: socket.socket, pieces: _Pieces, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while (piece := _when_due(*pieces.get())) and not (replies and self.cutting):
                sink.sendall(piece)
            sink.sendall(piece[: len(piece) // 2])
        for end in (source, sink):
            _end(end, socket.SHUT_RD if _is_reset(end) else socket.SHUT_RDWR)
        source.close()
        # Only now: who waits until nothing is open may rely on it that every reset was sent.
        self._open.discard(source)
        self._abandoned.discard(source)


def _when_due(due: float, piece: bytes) -> bytes:
    time.sleep(max(0.0, due - time.monotonic()))
    return piece


def _end(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)


def _is_reset(connection: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET)) == _RESET
    return True


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Runs a proxy until the body ends."""
    running = Proxy(target)
    try:
        yield running
    finally:
        running.close()
