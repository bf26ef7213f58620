"""Where the process is in its life."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """Where the process is: started once everything is warm, draining from the first signal to stop."""

    started: bool = False
    draining: bool = False
