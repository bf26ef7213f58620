"""A flood of requests from a process of its own, so that the generator of the others' load does not wait with it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
from collections.abc import Callable, Sequence
from typing import Any

from loadtests.load import open_loop_driver
from loadtests.load.open_loop_driver import Arrival

# Sharing a processor with a flood costs a list its time now and then.
HICCUPS = frozenset({"deadline", "overload", "state_stale", "state_unavailable"})


class Flood:
    """Sends requests to a service from another process."""

    def __init__(self, url: str, arrivals: Callable[..., Sequence[Arrival]], *arguments: Any) -> None:
        """Prepares the process.

        Args:
            url: URL of the service.
            arrivals: Makes the requests, in the other process; a function of a module.
            arguments: Its arguments.
        """
        context = multiprocessing.get_context("spawn")
        self._told: multiprocessing.queues.SimpleQueue[str] = context.SimpleQueue()
        self._process = context.Process(target=_send, args=(self._told, url, arrivals, arguments))

    def run(self) -> str:
        """Sends the requests, and returns how they were answered."""
        self._process.start()
        answered = self._told.get()
        self._process.join()
        return answered


def _send(
    told: multiprocessing.queues.SimpleQueue[str],
    url: str,
    make: Callable[..., Sequence[Arrival]],
    arguments: tuple[Any, ...],
) -> None:
    try:
        arrivals = make(*arguments)
        report = open_loop_driver.drive_now(url, arrivals, warmup_s=0.0)
        rungs = {rung: len(latencies) for rung, latencies in report.rungs.items()}
        told.put(f"{len(arrivals)} requests, lists {rungs}, errors {report.errors}")
    except Exception as error:
        told.put(f"failed: {error!r}")
