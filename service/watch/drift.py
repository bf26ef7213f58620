"""How far a window is from the baseline, and whether that is more than chance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.watch.baseline import WatchBaseline
from service.watch.statistics import js_bits
from service.watch.window import Window


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one statistic of a window is from the baseline.

    Attributes:
        statistic: Its name.
        divergence: Jensen–Shannon divergence in bits.
        threshold: What a window of this size hardly ever reaches by chance.
        subjects: Effective number of subjects of the window.
        largest: The bin whose share changed most.
        was: Its share in the baseline.
        now: Its share in the window.
    """

    statistic: str
    divergence: float
    threshold: float
    subjects: float
    largest: str
    was: float
    now: float

    @property
    def drifted(self) -> bool:
        """Whether the statistic drifted."""
        return self.divergence > self.threshold

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as the console shows them."""
        rounded = {name: round(v, 5) if isinstance(v, float) else v for name, v in asdict(self).items()}
        return {**rounded, "drifted": self.drifted}


def drifts(window: Window, baseline: WatchBaseline) -> Mapping[str, Drift]:
    """Returns the drift of each statistic that the baseline has and of which the window has enough."""
    found: dict[str, Drift] = {}
    for name, before in baseline.distributions.items():
        shares, size = window.shares(name), window.size(name)
        threshold = before.threshold(size) if size else None
        if shares is None or threshold is None:
            continue
        divergence = float(js_bits(before.shares, shares))
        most = int(abs(shares - before.shares).argmax())
        was, now = float(before.shares[most]), float(shares[most])
        found[name] = Drift(name, divergence, threshold, size, before.bins[most], was, now)
    return found
