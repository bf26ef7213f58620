"""What a training reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model.training.checkpoint import Progress


@dataclass(frozen=True)
class Tick:
    """A report during an epoch.

    Attributes:
        epoch: Number of the epoch, from 0.
        done: Batches done in it.
        total: Batches of the epoch.
        loss: Mean loss of the batches done.
        progress: Progress of the run.
    """

    epoch: int
    done: int
    total: int
    loss: float
    progress: Progress


Report = Callable[[Tick], None]
