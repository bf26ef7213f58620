"""Calls that touch a file whose disk may hang: a network mount without its server, a volume that is being detached.

No time-out exists for such a call; the thread that makes it waits until the disk answers. A `DiskLane` gives it a
thread that nobody waits for, neither another file nor the end of the process, and makes no second call while one hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from service.common import logs

log = logs.get(__name__)

T = TypeVar("T")

# A small file takes milliseconds, also over a network.
PATIENCE_S = 5.0


class HungFileError(OSError):
    """The file does not answer in time."""


class DiskLane:
    """Calls about one file or folder, at most one at a time. Says when one hangs, and when it answers again.

    A call that hangs goes on: it ends when the disk answers, and what it does then still counts. Its result is lost.
    """

    def __init__(
        self, file: str, show: Callable[[float], None] = lambda _: None, patience_s: float = PATIENCE_S
    ) -> None:
        """Prepares a lane.

        Args:
            file: What is read, for the log: a fixed name, not a path.
            show: Called with 1 when the file hangs, and with 0 when it answers again; also from other threads.
            patience_s: How long a call may take.
        """
        self._file, self._show, self._patience_s = file, show, patience_s
        self._turn = asyncio.Lock()
        self._state = threading.Lock()
        self._running = False
        self._hangs = False

    async def run(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`, which is called in a thread.

        Raises:
            HungFileError: It takes too long, or an earlier call still hangs.
        """
        async with self._turn:
            waiting = asyncio.wrap_future(self._start(work))
            try:
                # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes together with the result.
                async with asyncio.timeout(self._patience_s):
                    return await waiting
            except TimeoutError:
                raise self._overdue() from None

    def run_now(self, work: Callable[[], T]) -> T:
        """Does the same for a caller that cannot await. It holds its thread up, but for `patience_s` once."""
        try:
            return self._start(work).result(self._patience_s)
        except TimeoutError:
            raise self._overdue() from None

    def _start(self, work: Callable[[], T]) -> Future[T]:
        with self._state:
            if self._running:
                raise HungFileError(f"{self._file}: the file does not answer")
            self._running = True
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        began = time.monotonic()

        def call() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            self._ended(time.monotonic() - began)
            with contextlib.suppress(InvalidStateError, RuntimeError):  # nobody waits any more
                future.set_exception(error) if error is not None else future.set_result(result)  # type: ignore[arg-type]

        threading.Thread(target=call, name=f"disk-{self._file}", daemon=True).start()
        return future

    def _overdue(self) -> HungFileError:
        with self._state:
            tell = self._running and not self._hangs
            self._hangs = self._running
        if tell:
            log.error("file_hangs", file=self._file, waited_s=self._patience_s)
            self._show(1.0)
        return HungFileError(f"{self._file}: the file does not answer")

    def _ended(self, after_s: float) -> None:
        with self._state:
            tell, self._running, self._hangs = self._hangs, False, False
        if tell:
            log.warning("file_answers", file=self._file, after_s=round(after_s, 1))
            self._show(0.0)
