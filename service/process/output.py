"""Standard output and standard error of the service, which never hold it up.

A pipe whose reader stalls blocks whoever writes to it, and a reader that is gone or a full disk makes every write fail.
`take_over` therefore puts a bounded queue and a thread between the process and the two streams. A write never waits and
never fails; lines that cannot be written are dropped and counted, and the next line that can be written says how many.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

_STDOUT, _STDERR = 1, 2
# What may wait for a slow reader.
MOST_BYTES = 1 << 20
# One write takes the lines that have gathered, up to what a pipe takes as a whole: processes that share it (several
# workers) do not cut each other's lines.
_BATCH_BYTES = select.PIPE_BUF
# Lines gather for this long, which wakes the thread less often.
_GATHER_S = 0.005
# A line without an end is handed over at this length.
_LINE_BYTES = 1 << 16
# How long the end of the process waits for a reader.
_FLUSH_S = 1.0
_POLL_S = 0.01
_READER_POLL_S = 1.0


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own.

    Attributes:
        dropped: Lines that were not written: the queue was full, or the write failed.
    """

    def __init__(self, fd: int, notice: Callable[[int], bytes], most_bytes: int = MOST_BYTES) -> None:
        """Starts the thread.

        Args:
            fd: Where to write. It may block.
            notice: Returns the line that says how many lines were dropped before it.
            most_bytes: What may wait in the queue; a longer line is dropped too.
        """
        self.dropped = 0
        self._fd, self._notice, self._most_bytes = fd, notice, most_bytes
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        # Reentrant: a destructor or a signal handler may write in the midst of a write of its own thread.
        self._lock = threading.RLock()
        self._waiting = 0
        self._told = 0
        self._torn = False
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def put(self, lines: bytes) -> None:
        """Queues whole lines, or drops them if the queue is full. Never waits, never raises."""
        with self._lock:
            if self._waiting + len(lines) > self._most_bytes:
                self._drop(lines)
                return
            self._waiting += len(lines)
        self._queue.put(lines)

    def flush(self, within_s: float) -> bool:
        """Waits until everything was written, but not longer than `within_s` seconds; returns whether it was."""
        give_up = time.monotonic() + within_s
        while self._waiting:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_POLL_S)
        return True

    def _run(self) -> None:
        following = b""
        while True:
            batch = following or self._queue.get()
            if not following:
                time.sleep(_GATHER_S)
            following = b""
            while not self._queue.empty() and not following:
                line = self._queue.get()
                if len(batch) + len(line) <= _BATCH_BYTES:
                    batch += line
                else:
                    following = line
            self._write(batch)
            with self._lock:
                self._waiting -= len(batch)

    def _write(self, lines: bytes) -> None:
        dropped = self.dropped
        head = b"\n" if self._torn else b""
        if dropped > self._told:
            head += self._notice(dropped - self._told)
        left = memoryview(head + lines)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                with contextlib.suppress(OSError):
                    select.select((), (self._fd,), (), _READER_POLL_S)
            except OSError:
                self._failed(head, lines, len(left))
                return
        self._torn, self._told = False, max(self._told, dropped)

    def _failed(self, head: bytes, lines: bytes, left: int) -> None:
        """Counts the lines that did not arrive as a whole."""
        self._torn = self._torn or 0 < left < len(head) + len(lines)
        lost = lines[len(lines) - min(left, len(lines)) :]
        with self._lock:
            self._drop(lost)

    def _drop(self, lines: bytes) -> None:
        self.dropped += max(1, lines.count(b"\n"))


class LineStream(io.TextIOBase):
    """A text stream over a `LineWriter`, in place of `sys.stdout` or `sys.stderr`. It hands over whole lines."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LineWriter, fd: int) -> None:
        self._writer, self._fd = writer, fd
        self._lock = threading.RLock()
        self._begun = ""

    def write(self, text: str) -> int:
        """Queues the lines that `text` completes, and keeps its end for the next call."""
        with self._lock:
            whole, end, rest = (self._begun + text).rpartition("\n")
            self._begun = rest
            if len(self._begun) > _LINE_BYTES:
                self.flush()
        if end:
            self._writer.put(f"{whole}\n".encode(errors=self.errors))
        return len(text)

    def flush(self) -> None:
        """Queues a line without its end, as a prompt is. Does not wait until it is written."""
        with self._lock:
            begun, self._begun = self._begun, ""
        if begun:
            self._writer.put(begun.encode(errors=self.errors))

    def fileno(self) -> int:
        """Returns the descriptor behind the stream, for children and for crash handlers."""
        return self._fd

    def isatty(self) -> bool:
        """Returns whether a terminal shows the stream."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Returns True."""
        return True


_writers: list[LineWriter] = []


def take_over(notice: Callable[[int], bytes]) -> None:
    """Puts `sys.stdout` and `sys.stderr` behind queues for the rest of the process. Does so once.

    Args:
        notice: Returns the line that says how many lines were dropped.
    """
    if _writers:
        return
    out, err = (_without_waiting(fd) for fd in (_STDOUT, _STDERR))
    _writers.append(LineWriter(err, notice))
    # One writer for one file keeps the order of the lines.
    if not os.path.sameopenfile(_STDOUT, _STDERR):
        _writers.append(LineWriter(out, notice))
    sys.stderr, sys.stdout = LineStream(_writers[0], _STDERR), LineStream(_writers[-1], _STDOUT)
    # Warnings become records of the logger `py.warnings`.
    logging.captureWarnings(True)
    atexit.register(flush)


def dropped() -> int:
    """Returns how many lines this process could not write."""
    return sum(writer.dropped for writer in _writers)


def flush(within_s: float = _FLUSH_S) -> None:
    """Gives what was written last a moment to arrive. A reader that stalls does not hold the process longer."""
    give_up = time.monotonic() + within_s
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    for writer in _writers:
        writer.flush(max(0.0, give_up - time.monotonic()))


def _without_waiting(fd: int) -> int:
    """Opens the pipe or terminal behind a descriptor anew, so that nothing of this process waits for its reader.

    That includes libraries which write to the descriptor themselves, such as onnxruntime. The mode belongs to the new
    opening alone: other programs that share the pipe or terminal keep theirs. A regular file, a socket or a pipe of
    another user stays as it is; there only the thread of the `LineWriter` waits.
    """
    with contextlib.suppress(OSError):
        kind = os.fstat(fd).st_mode
        if stat.S_ISFIFO(kind) or os.isatty(fd):
            opened = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.dup2(opened, fd)
            os.close(opened)
    return fd
