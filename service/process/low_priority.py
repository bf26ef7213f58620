"""Threads for work that nobody waits for: the scheduler prefers the event loop and the engine to them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

# Not by much: who works here may hold the interpreter's lock, which the event loop and the engine need too.
_NICENESS = 5


def low_priority_thread(name: str) -> ThreadPoolExecutor:
    """Returns one thread of low priority.

    Args:
        name: Prefix of the thread's name.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_lower_priority)


def _lower_priority() -> None:
    if sys.platform == "linux":  # where threads have a priority of their own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
