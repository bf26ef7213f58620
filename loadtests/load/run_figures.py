"""Figures of a run of the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadtests.common.hdr import Latencies

# A generator that sends later than this lacks processor time: its figures measure itself.
LATE_SEND_MS = 5.0


@dataclass(slots=True)
class Report:
    """Figures of a run; rates are requests a second after the warm-up, latencies in milliseconds."""

    offered_rate: float
    answered_rate: float
    seconds: float
    requests: int
    errors: dict[str, int]
    routes: dict[str, Latencies]
    rungs: dict[str, Latencies]
    reasons: dict[str, int]
    send_lag: Latencies
    late_share: float
    waited_share: float
    most_open: int
    cpu_share: float
    cpu_us: float
    connections: int
    warmup_s: float

    @property
    def clean(self) -> bool:
        """Whether no request failed."""
        return not self.errors

    def share(self, rung: str) -> float:
        """Returns the share of lists from this rung; 0 if no answer named any rung."""
        lists = sum(len(one) for one in self.rungs.values())
        return len(self.rungs[rung]) / lists if lists and rung in self.rungs else 0.0

    def json(self) -> dict[str, Any]:
        """Returns all figures, with the histograms encoded."""
        shares = {rung: round(self.share(rung), 5) for rung in self.rungs}
        return {
            "offered_rate": round(self.offered_rate, 2),
            "answered_rate": round(self.answered_rate, 2),
            "seconds": round(self.seconds, 3),
            "warmup_s": self.warmup_s,
            "requests": self.requests,
            "errors": self.errors,
            "routes": {label: found.report() for label, found in self.routes.items()},
            "rungs": {rung: {"share": shares[rung], **found.report()} for rung, found in self.rungs.items()},
            "reasons": self.reasons,
            "generator": {
                "connections": self.connections,
                "send_lag_ms": self.send_lag.figures(),
                "late_share": round(self.late_share, 5),
                "waited_for_a_connection": round(self.waited_share, 5),
                "most_open": self.most_open,
                "cpu_share": round(self.cpu_share, 4),
                "cpu_us_a_request": round(self.cpu_us, 1),
            },
        }
