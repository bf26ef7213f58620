"""What every opener of a part needs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from service.metrics.service_metrics import Metrics
from service.settings.space import Space


@dataclass(frozen=True, slots=True)
class Opening:
    """What every opener of a space needs: the stack that closes the parts, the metrics and the space."""

    stack: AsyncExitStack
    metrics: Metrics
    space: Space
