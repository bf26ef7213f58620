"""The end of a process: the signals that ask for it, and force when it does not end by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback

from service.common import logs
from service.process import output

log = logs.get(__name__)

_THREADS_MAX, _FRAMES_MAX = 20, 3


def end_within(seconds: float) -> None:
    """Ends the process by force, with status 1, if it still runs after that time.

    A disk that hangs may hold a thread for which the end of the process would wait for ever. The log then says where
    each thread was.

    Args:
        seconds: Longer than an orderly stop takes.
    """

    def watch() -> None:
        time.sleep(seconds)
        log.critical("stop_overdue", after_s=seconds, threads=_threads())
        output.flush()
        os._exit(1)

    threading.Thread(target=watch, name="stop-watch", daemon=True).start()


def stop_signals(longest_s: float) -> asyncio.Event:
    """Returns an event that SIGTERM, SIGINT and, unless it is ignored, SIGHUP set. Call it on the event loop.

    Args:
        longest_s: After this time, from the first signal on, the process is ended by force.
    """
    stop = asyncio.Event()

    def stopped() -> None:
        if not stop.is_set():
            end_within(longest_s)
        stop.set()

    hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
    for sig in (signal.SIGTERM, signal.SIGINT, *hang_up):
        asyncio.get_running_loop().add_signal_handler(sig, stopped)
    return stop


def _threads() -> dict[str, list[str]]:
    """Returns the innermost code locations of each thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'unknown')} {ident}": [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack(top)[-_FRAMES_MAX:]
        ]
        for ident, top in list(sys._current_frames().items())[:_THREADS_MAX]  # noqa: SLF001 - the documented way
    }
