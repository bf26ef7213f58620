"""How much time goes into new filters: a share of one core for all callers together, half of that for each. Pure.

Callers invent filters, and a filter of a large catalogue takes milliseconds to build. What is rationed is processor
time, so a small catalogue may have thousands of new filters a second and a large one a few.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from service.common.deadline import Clock

# Saved up while nothing is built: the filters of a shop come together after a start.
_SAVED_S = 1.0
_CALLER_PART = 0.5
_CALLERS_MAX = 10_000
# Time of a build before one was measured, and the weight of a new measurement.
_FIRST_GUESS_S = 0.005
_WEIGHT = 0.2

Spent = Literal["caller", "total"]


@dataclass(slots=True)
class _Account:
    """Seconds of building that are left; they come back at `share` seconds a second."""

    share: float
    most: float
    left: float
    since: float

    def balance(self, now: float) -> float:
        self.left = min(self.most, self.left + (now - self.since) * self.share)
        self.since = now
        return self.left


class FilterRation:
    """Admits new filters while there is time for them.

    Args:
        share: Part of one core that building may take in the long run.
        clock: Monotonic seconds.
    """

    def __init__(self, share: float, clock: Clock = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._total = _Account(share, _SAVED_S, _SAVED_S, clock())
        self._callers: OrderedDict[str, _Account] = OrderedDict()
        self._expected_s = _FIRST_GUESS_S

    def refusal(self, caller: str) -> Spent | None:
        """Returns whose ration is spent, None if the caller may have a new filter built."""
        now = self._clock()
        if self._of(caller).balance(now) <= 0.0:
            return "caller"
        return "total" if self._total.balance(now) <= 0.0 else None

    def begin(self, caller: str) -> float:
        """Charges what a build is expected to take, and returns it for `end`."""
        self._charge(caller, self._expected_s)
        return self._expected_s

    def end(self, caller: str, expected_s: float, seconds: float) -> None:
        """Corrects the charge of a build by the processor time that it took."""
        self._charge(caller, seconds - expected_s)
        self._expected_s += _WEIGHT * (seconds - self._expected_s)

    def _charge(self, caller: str, seconds: float) -> None:
        for account in (self._total, self._of(caller)):
            account.balance(self._clock())
            account.left -= seconds

    def _of(self, caller: str) -> _Account:
        account = self._callers.get(caller)
        if account is None:
            most = _SAVED_S * _CALLER_PART
            account = self._callers[caller] = _Account(self._share * _CALLER_PART, most, most, self._clock())
            if len(self._callers) > _CALLERS_MAX:
                self._callers.popitem(last=False)
        self._callers.move_to_end(caller)
        return account
