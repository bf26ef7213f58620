"""The state of the process: starting, serving or draining."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ProcessState:
    """The state of the process.

    Attributes:
        started: Everything is open and warm.
        draining: A signal to stop has arrived.
    """

    started: bool = False
    draining: bool = False
