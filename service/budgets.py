"""Error budgets over model attempts: how fast they are being spent. Pure: the clock is passed in.

A budget is the share of model attempts that may be late, or fail, in the long run. The burn rate is the share seen
within a window divided by that: at 1 the budget lasts exactly as long as planned, at 10 a tenth of it (Beyer et al.,
The Site Reliability Workbook, 2018, chapter 5). HTTP statuses would never burn: the ladder hides every failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Objective = Literal["latency", "errors"]

WINDOWS_S: dict[str, float] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0}
_SLICE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Allowed shares of model attempts, each in (0, 1]."""

    late_share: float = 0.01
    failed_share: float = 0.01


@dataclass(slots=True)
class _Slice:
    began: float
    total: int = 0
    late: int = 0
    failed: int = 0


class ErrorBudgets:
    """Counts attempts for as long as the longest window; a window with no attempt burns nothing."""

    def __init__(self, settings: BudgetSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._slices: deque[_Slice] = deque()

    def record(self, *, late: bool, failed: bool) -> None:
        """One attempt ended."""
        now = self._clock()
        if not self._slices or now - self._slices[-1].began >= _SLICE_S:
            self._slices.append(_Slice(now))
            while now - self._slices[0].began > max(WINDOWS_S.values()):
                self._slices.popleft()
        last = self._slices[-1]
        last.total += 1
        last.late += late
        last.failed += failed

    def burn_rates(self) -> dict[Objective, dict[str, float]]:
        """By objective and window; `WINDOWS_S` names the windows."""
        allowed = self._settings
        rates: dict[Objective, dict[str, float]] = {"latency": {}, "errors": {}}
        for name, length in WINDOWS_S.items():
            horizon = self._clock() - length
            seen = [part for part in self._slices if part.began > horizon]
            total = max(1, sum(part.total for part in seen))
            rates["latency"][name] = sum(part.late for part in seen) / total / allowed.late_share
            rates["errors"][name] = sum(part.failed for part in seen) / total / allowed.failed_share
        return rates
