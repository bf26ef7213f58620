"""Shadows: requests that run on a candidate as well, behind their answers, in spare time only.

    an answer is made → is it among the share? → a short queue → nothing waits for the engine? → candidate → compared
                                                  full: dropped    not within a second: busy

Nothing of it touches an answer: the work is done on a thread of low priority that calls the engine of the candidate
past its queue, one request at a time, at most half of the time. So an answer shares the processor with one run of a
shadow at most. No state is stored, no profile cached, no exposure written, no filter built, and no guard learns of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from service.common import logs
from service.common.deadline import Clock
from service.common.request_errors import InvalidRequest
from service.common.shares import within_share
from service.experiments.arms import Arms, Placement
from service.experiments.canary_watch import CanaryWatch
from service.experiments.document import Document, Experiment
from service.experiments.shadow_counts import OUTCOMES, SIDES, Outcome, compared, happened, overlap_of
from service.guard.guards import AS_FOR_EVERYBODY
from service.metrics.service_metrics import Metrics
from service.recommend.made import Made
from service.recommend.request_plan import Plan, make_plan
from service.recommend.side_run import encoded, listed

log = logs.get(__name__)

_WAITING_MAX = 32
_PATIENCE_S = 1.0
# How often it is looked whether the engine is idle, while something waits for that.
_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits for spare time.

    Attributes:
        shadow: The experiment.
        plan: What was planned for its answer.
        shown: Ids of the items that were shown.
        took_s: Seconds from the plan to the list.
        since: When it began to wait.
    """

    shadow: Experiment
    plan: Plan
    shown: Sequence[str]
    took_s: float
    since: float


class Shadows:
    """Runs the shadows of a process. Start `run` as a background task, and call `follow` with each document.

    Args:
        arms: Says what a candidate is.
        counts: Where comparisons are counted for all replicas.
        busy: Whether anything waits for an engine, or runs on one.
        metrics: Counts them in this process.
        thread: Where candidates run.
        history_cap: Events that a log keeps.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        arms: Arms,
        counts: CanaryWatch,
        busy: Callable[[], bool],
        metrics: Metrics,
        thread: Executor,
        *,
        history_cap: int,
        clock: Clock = time.monotonic,
    ) -> None:
        self._arms, self._counts, self._busy, self._metrics = arms, counts, busy, metrics
        self._thread, self._history_cap, self._clock = thread, history_cap, clock
        self._shadows: tuple[Experiment, ...] = ()
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._complained: set[str] = set()  # runs whose first failure was logged

    @property
    def waiting(self) -> int:
        """Requests that wait for spare time."""
        return len(self._waiting)

    def follow(self, document: Document) -> None:
        """Runs the shadows of another document from now on."""
        before, self._shadows = self._shadows, document.shadows
        runs = {one.run for one in self._shadows}
        self._complained &= runs
        self._waiting = deque(one for one in self._waiting if one.shadow.run in runs)
        for gone in {one.name for one in before} - {one.name for one in self._shadows}:
            self._forget(gone)

    def answered(self, plan: Plan, made: Made, list_id: str, took_s: float) -> None:
        """Takes a request whose answer is made, if it is among the share of a shadow. Returns at once.

        Answers that are not as everybody's are left alone: they belong to the arm of another experiment.

        Args:
            plan: What was planned for the answer.
            made: The list.
            list_id: Its id, which draws the share.
            took_s: Seconds from the plan to the list.
        """
        if not self._shadows or plan.placement.forced or plan.placement.variant != AS_FOR_EVERYBODY:
            return
        for shadow in self._shadows:
            if not within_share(shadow.share, f"shadow {shadow.salt}", list_id):
                continue
            if made.rung != "full" or not len(made.listing.items):
                self._count(shadow, "skipped")
            elif len(self._waiting) >= _WAITING_MAX:
                self._count(shadow, "dropped")
            else:
                ids = plan.model.catalogue.item_ids
                shown = [ids[item] for item in made.listing.items.tolist()]
                self._waiting.append(_Waiting(shadow, plan, shown, took_s, self._clock()))
                self._wake.set()

    async def run(self) -> None:
        """Runs what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                one = self._waiting.popleft()
                spent_s = 0.0
                try:
                    spent_s = await self._compare(one)
                except Exception as error:
                    self._failed(one, error)
                await asyncio.sleep(spent_s)  # at most half of the time

    async def _compare(self, one: _Waiting) -> float:
        """Runs one request on its candidate, and counts what came of it; returns the seconds that it took."""
        if not await self._spare(one):
            return 0.0
        placement = self._arms.candidate(one.shadow)
        in_thread = asyncio.get_running_loop().run_in_executor
        began = self._clock()
        plan = None if placement is None else await in_thread(self._thread, _planned, one.plan, placement)
        if plan is None:
            self._count(one.shadow, "skipped")
            return self._clock() - began
        encoding = self._clock()
        h = await in_thread(self._thread, encoded, plan, self._history_cap)
        encoded_s = self._clock() - encoding
        if not await self._spare(one):
            return encoded_s
        decoding = self._clock()
        candidate = await in_thread(self._thread, listed, plan, h)
        decoded_s = self._clock() - decoding
        self._compared(one, candidate, encoded_s + decoded_s)
        return encoded_s + decoded_s

    async def _spare(self, one: _Waiting) -> bool:
        """Waits until the engine is idle; counts the request as busy if it is not in time."""
        while self._busy():
            if self._clock() - one.since > _PATIENCE_S:
                self._count(one.shadow, "busy")
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _compared(self, one: _Waiting, candidate: Sequence[str], took_s: float) -> None:
        shadow = one.shadow
        if not self._runs(shadow):
            return  # it was stopped meanwhile
        self._counts.shadowed(shadow.name, shadow.arms[0].name, compared(one.shown, candidate, one.took_s, took_s))
        metrics = self._metrics.experiments
        metrics.shadow_requests.labels(shadow.name, "compared").inc()
        metrics.shadow_overlap.labels(shadow.name).observe(overlap_of(one.shown, candidate))
        for side, seconds in zip(SIDES, (one.took_s, took_s), strict=True):
            metrics.shadow_duration.labels(shadow.name, side).observe(seconds)

    def _count(self, shadow: Experiment, outcome: Outcome) -> None:
        if self._runs(shadow):
            self._counts.shadowed(shadow.name, shadow.arms[0].name, happened(outcome))
            self._metrics.experiments.shadow_requests.labels(shadow.name, outcome).inc()

    def _runs(self, shadow: Experiment) -> bool:
        return any(one.run == shadow.run for one in self._shadows)

    def _failed(self, one: _Waiting, error: Exception) -> None:
        self._count(one.shadow, "failed")
        if one.shadow.run not in self._complained:
            self._complained.add(one.shadow.run)
            log.error("shadow_failed", experiment=one.shadow.name, **logs.where(error))

    def _forget(self, name: str) -> None:
        """Removes the metrics of a shadow that has ended."""
        metrics = self._metrics.experiments
        with contextlib.suppress(KeyError):
            metrics.shadow_overlap.remove(name)
        for outcome in OUTCOMES:
            with contextlib.suppress(KeyError):
                metrics.shadow_requests.remove(name, outcome)
        for side in SIDES:
            with contextlib.suppress(KeyError):
                metrics.shadow_duration.remove(name, side)


def _planned(plan: Plan, placement: Placement) -> Plan | None:
    """The plan of the same request for the candidate; None if it has no such segment or filter, or must build that."""
    model = placement.model
    try:
        wanted = model.filter(plan.request.filter or {})
        filtered = model.ready(wanted) if plan.ranked is None else model.tested(wanted)
        if filtered is None or filtered.allows_nothing:
            return None
        # A profile of its own, so that nothing of the candidate stays in the one that is cached.
        return make_plan(
            plan.request, plan.context, plan.profile.under(model), filtered, placement,
            subject=plan.subject, history_read=True,
            budget_ms=plan.budget_ms, deadline=plan.deadline, now_ms=plan.now_ms,
        )  # fmt: skip
    except InvalidRequest:
        return None
