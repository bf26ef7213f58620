"""The requests that this process answered last, on which a change of policies is tried before it is made.

They are kept in this process alone, for a few minutes and up to a bound. Those of a subject that is erased go with it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

from service.common.deadline import Clock
from service.recommend.request_plan import Plan
from service.schemas.recommend_request import RecommendRequest
from service.store.records import Subject

KEPT_MAX, KEPT_S = 200, 900.0


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A request that was answered, whose it was, and when in monotonic seconds."""

    request: RecommendRequest
    request_id: str
    subject: Subject | None
    at: float


class RecentRequests:
    """The requests that this process answered last, oldest first."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        # Tuples, of what a kept request is made of: one is added for each answer, and few are ever looked at.
        self._kept: deque[tuple[RecommendRequest, str, Subject | None, float]] = deque(maxlen=KEPT_MAX)

    def answered(self, plan: Plan) -> None:
        """Keeps the request of an answer, unless it named items to rank or the arms of a tester."""
        if plan.request.candidates is None and plan.request.arm is None:
            self._kept.append((plan.request, plan.context.request_id, plan.subject, self._clock()))

    def forget(self, subject: Subject) -> None:
        """Drops the requests of a subject that is erased."""
        if any(whose == subject for _, _, whose, _ in self._kept):
            self._kept = deque((one for one in self._kept if one[2] != subject), maxlen=KEPT_MAX)

    def newest(self, most: int) -> list[KeptRequest]:
        """Returns the last requests, newest first; those that are too old are dropped."""
        oldest = self._clock() - KEPT_S
        while self._kept and self._kept[0][-1] < oldest:
            self._kept.popleft()
        return [KeptRequest(*one) for one in islice(reversed(self._kept), most)]
