"""Signals that end a training on several processes: noted, so that all of them stop after the same step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether this process was told to end.

    Attributes:
        noted: Whether a signal has come. A second one acts at once, as it did before.
    """

    def __init__(self) -> None:
        self.noted = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes signals instead of ending the process; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, _frame: object) -> None:
            self.noted = True
            signal.signal(number, before[signal.Signals(number)])

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
