"""What other policies would change, tried on the requests that this process answered last.

Each request is planned under the policies in force and under the others. Where the plans differ, both lists are made,
past the queues, while nothing else waits for the engine. No state is stored, no exposure written, and no guard learns
of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from service.common.deadline import Clock, Deadline
from service.common.errors import Overloaded, StoreUnavailable
from service.common.request_context import RequestContext
from service.common.request_errors import InvalidRequest
from service.experiments.arms import Placement
from service.experiments.shadow_counts import overlap_of
from service.history.profile import Profile
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.policies.policies import Policies, PolicyBook
from service.recommend.recent_requests import KeptRequest, RecentRequests
from service.recommend.request_plan import Plan, make_plan
from service.recommend.side_run import encoded, listed
from service.store.records import UserRecord

TRIED_MAX = 50
_EXAMPLES = 5
# Time of a preview; what was not tried until then is left out.
_PATIENCE_S = 5.0
_LOOK_S = 0.005
_READ_S = 0.5
_EMPTY = UserRecord("", ())


@dataclass(slots=True)
class _Found:
    """What a preview found so far."""

    tried: int = 0
    left_out: int = 0
    changed: int = 0
    first: int = 0
    common: float = 0.0
    segments: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns it as the service answers it, with a sentence for each finding."""
        return {
            "tried": self.tried,
            "left_out": self.left_out,
            "changed": self.changed,
            "first_changed": self.first,
            "common_share": round(self.common / self.changed, 4) if self.changed else None,
            "segments": [
                {"before": before, "after": after, "lists": count}
                for (before, after), count in self.segments.most_common()
            ],
            "examples": self.examples,
            "would": list(self._sentences()),
            "refused": [],
        }

    def _sentences(self) -> list[str]:
        if not self.tried:
            return ["no recent request of this replica to try it on"]
        said = [f"{self.changed} of the last {self.tried} lists of this replica would change"]
        if self.changed:
            said.append(
                f"these keep {self.common / self.changed:.0%} of their items; {self.first} have another first item"
            )
        moved = [f"{count} from {a} to {b}" for (a, b), count in self.segments.most_common(3) if a != b]
        if moved:
            said.append(f"lists that would move to another segment: {', '.join(moved)}")
        if self.left_out:
            said.append(f"{self.left_out} recent requests could not be tried in time")
        return said


class PolicyPreview:
    """Tries policies on the requests that were answered last.

    Args:
        recent: These requests.
        serving: The model in service.
        book: The policies in force.
        states: Reads the histories.
        busy: Whether anything waits for an engine, or runs on one.
        thread: Where the lists are made.
        history_cap: Events that a log keeps.
        wall_clock: Epoch seconds.
    """

    def __init__(
        self,
        recent: RecentRequests,
        serving: Serving,
        book: PolicyBook,
        states: StateKeeper,
        busy: Callable[[], bool],
        thread: Executor,
        *,
        history_cap: int,
        wall_clock: Clock = time.time,
    ) -> None:
        self._recent, self._serving, self._book, self._states = recent, serving, book, states
        self._busy, self._thread, self._history_cap = busy, thread, history_cap
        self._wall_clock = wall_clock
        self._running = False

    async def of(self, policies: Policies) -> dict[str, Any]:
        """Returns what these policies would change.

        Raises:
            Overloaded: Another preview is running.
        """
        if self._running:
            raise Overloaded("another preview is running; try again in a moment")
        self._running = True
        try:
            return await self._of(policies)
        finally:
            self._running = False

    async def _of(self, policies: Policies) -> dict[str, Any]:
        found, until = _Found(), time.monotonic() + _PATIENCE_S
        in_thread = asyncio.get_running_loop().run_in_executor
        for kept in self._recent.newest(TRIED_MAX):
            profile = await self._profile(kept, until)
            if profile is None or not await self._spare(until):
                found.left_out += 1
                continue
            await in_thread(self._thread, self._tried, kept, profile, policies, found)
        return found.to_json()

    async def _profile(self, kept: KeptRequest, until: float) -> Profile | None:
        """The present history of a request; None if it cannot be read."""
        model = self._serving.model
        if kept.subject is None:
            return Profile(None, model, _EMPTY)
        try:
            deadline = Deadline.after(min(_READ_S, max(0.0, until - time.monotonic())), time.monotonic)
            return await self._states.read(kept.subject, model, deadline)
        except StoreUnavailable:
            return None

    async def _spare(self, until: float) -> bool:
        while self._busy():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_LOOK_S)
        return time.monotonic() <= until

    def _tried(self, kept: KeptRequest, profile: Profile, policies: Policies, found: _Found) -> None:
        try:
            before = self._planned(kept, profile, self._book.current)
            after = self._planned(kept, profile, policies)
        except InvalidRequest:  # it names a segment that one of them does not have
            before = after = None
        if before is None or after is None:
            found.left_out += 1
            return
        found.tried += 1
        found.segments[before.segment, after.segment] += 1
        if _alike(before, after):
            return
        h = encoded(before, self._history_cap)
        old, new = listed(before, h), listed(after, h)
        if old == new:
            return
        found.changed += 1
        found.first += old[:1] != new[:1]
        found.common += overlap_of(old, new)
        if len(found.examples) < _EXAMPLES:
            found.examples.append(_example(profile.model, before, after, old, new))

    def _planned(self, kept: KeptRequest, profile: Profile, policies: Policies) -> Plan | None:
        """The plan of a request under some policies; None if its filter must be built first."""
        model, request = profile.model, kept.request
        filtered = model.ready(model.filter(request.filter or {}))
        if filtered is None or filtered.allows_nothing:
            return None
        now = time.monotonic()
        return make_plan(
            request, RequestContext(kept.request_id, now, now, time.monotonic),
            replace(profile), filtered, Placement(model, policies),
            subject=kept.subject, history_read=True, budget_ms=0.0,
            deadline=Deadline.after(_PATIENCE_S, time.monotonic), now_ms=int(self._wall_clock() * 1000.0),
        )  # fmt: skip


def _alike(before: Plan, after: Plan) -> bool:
    """Whether two plans of one request make the same list."""

    def made_by(plan: Plan) -> tuple[object, ...]:
        return plan.decoding, plan.ruling, plan.group(), plan.seed, plan.ordered

    return made_by(before) == made_by(after)


def _example(model: ServedModel, before: Plan, after: Plan, old: list[str], new: list[str]) -> dict[str, Any]:
    """A list that would change: what it is made by, and the items that go and come."""

    def named(ids: list[str], others: list[str]) -> list[str]:
        index = model.vocabulary.item_index
        return [model.catalogue.title(index[one]) or one if one in index else one for one in ids if one not in others]

    return {
        "segment": [before.segment, after.segment],
        "strategy": [before.decoding.strategy, after.decoding.strategy],
        "goes": named(old, new),
        "comes": named(new, old),
        "first": [named(old[:1], []), named(new[:1], [])],
    }
