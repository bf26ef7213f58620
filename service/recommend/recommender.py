"""One answer to `/recommend`. Read `Recommender.recommend` from top to bottom.

    read the history → plan the answer → choose the rung → one model attempt → the answer → its record
                                     ↘            ↘ on any failure: a lower rung ↗  ↗
                                       the same question was answered before: its list

The rungs are full → narrow → item_cf → popular. There is always an answer, and it names its rung and the reason for it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, cast

from service.answers.kept_lists import KeptLists
from service.batching.together import Together
from service.common import logs
from service.common.deadline import Clock, Deadline
from service.common.errors import ModelAttemptFailed, ModelError, StoreUnavailable
from service.common.request_context import RequestContext
from service.engine.fallback import RecommendationList, Source, empty_list, first_of
from service.experiments.arms import Arms
from service.experiments.canary_watch import CanaryWatch
from service.exposures.recorder import Recorder
from service.guard.guard import MODEL_RUNGS, Decision, Guard, LowerRung, Outcome, Reason, Rung
from service.guard.guards import Guards
from service.history.profile import Profile
from service.history.pseudonyms import Pseudonyms
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.recommend.known_lists import KnownLists
from service.recommend.made import Made
from service.recommend.model_attempt import ModelAttempts
from service.recommend.pages import Pages
from service.recommend.reasons import Reasons
from service.recommend.recent_requests import RecentRequests
from service.recommend.request_plan import NOT_ASKED, Plan, make_plan
from service.recommend.ruled_list import ruled
from service.recommend.shadows import Shadows
from service.recommend.shown_list import entry_of, watched
from service.rules.counting import RuleCounts
from service.schemas.recommend_request import RecommendRequest
from service.store.records import Subject, UserRecord
from service.tracing import tracing
from service.watch.traffic_watch import TrafficWatch

log = logs.get(__name__)

_EMPTY_RECORD = UserRecord("", ())
# Reserved, while the history is read, for the rungs that need no engine.
_LAST_RUNGS_S = 0.002
# Why a request that may take no time has no history.
_HURRIED: Reason | None = "overload"
_NO_PAGES = "too many requests are in progress for a list of pages: this is the whole list"


class Recommender:
    """Answers `/recommend`.

    Guarantees an answer before the deadline, unless the event loop itself is late. Every item is in the catalogue,
    allowed and not excluded. A list of the model reflects every acknowledged event, unless its reason says that the log
    could not be read and the request brought events of its own.
    """

    def __init__(
        self,
        arms: Arms,
        canaries: CanaryWatch,
        states: StateKeeper,
        guards: Guards,
        metrics: Metrics,
        ids: Pseudonyms,
        reasons: Reasons,
        recorder: Recorder,
        watch: TrafficWatch,
        shadows: Shadows,
        recent: RecentRequests,
        pages: Pages,
        kept: KeptLists,
        *,
        budget_ms: float,
        budget_max_ms: float,
        wall_clock: Clock = time.time,
    ) -> None:
        self._arms, self._canaries = arms, canaries
        self._states = states
        self._guards = guards
        self._metrics = metrics
        self._ids = ids
        self._reasons = reasons
        self._recorder = recorder
        self._watch, self._shadows, self._recent, self._pages = watch, shadows, recent, pages
        self._attempts = ModelAttempts(states, metrics)
        self._known = KnownLists(kept, states.cache, metrics)
        self._rules = RuleCounts(metrics)
        self._budget_ms, self._budget_max_ms = budget_ms, budget_max_ms
        self._wall_clock = wall_clock

    def budget_ms(self, asked: float | None) -> float:
        """Returns the budget of an answer, in milliseconds: what was asked for, or the default, within the maximum."""
        return min(asked or self._budget_ms, self._budget_max_ms)

    async def recommend(
        self,
        request: RecommendRequest,
        context: RequestContext,
        *,
        most_ms: float | None = None,
        together: Together | None = None,
        start: LowerRung | None = None,
    ) -> dict[str, Any]:
        """Returns the body of the answer.

        Args:
            request: The validated body of the request.
            context: When the request began and arrived; receives the facts for its log line.
            most_ms: Budget of the batch that the request belongs to: its own may be shorter, but not longer.
            together: The requests of that batch.
            start: The rung to start on, without the model; None for that which the guard decides.

        Raises:
            InvalidRequest: The request names a segment, a filter or an arm that does not exist.
        """
        budget_ms = self.budget_ms(request.budget_ms or most_ms)
        budget_ms = budget_ms if most_ms is None else min(budget_ms, most_ms)
        if request.cursor is not None:
            return await self._pages.next(request, context, budget_ms, self._read_history)
        deadline = context.deadline(budget_ms)
        subject = self._ids.subject(request.user_id, request.session_id)
        placement = self._arms.place(subject, request.arm)
        model, guard = placement.model, self._guards.of(placement.variant)
        wanted = model.filter(request.filter or {})
        paged = request.page and not context.hurried
        pages = await self._pages.state(subject, deadline.keeping(_LAST_RUNGS_S)) if paged else None
        if context.hurried:
            profile, read_failure = Profile(None, model, _EMPTY_RECORD), _HURRIED
        else:
            profile, read_failure = await self._read_history(subject, model, deadline)
        subject = profile.subject or subject  # the same, with its tag made
        waits = deadline.keeping(guard.reserve_s(deadline.remaining()))
        if request.candidates is None and not context.hurried:
            filtered = await model.prepared(wanted, context.caller, waits)
        else:
            filtered = model.tested(wanted)  # a few items are looked up, so no mask is needed
        plan = make_plan(
            request, context, profile, filtered, placement,
            subject=subject, history_read=read_failure is None, together=together,
            budget_ms=budget_ms, deadline=deadline, now_ms=int(self._wall_clock() * 1000.0),
        )  # fmt: skip
        deep, rung, reason, took_s = await self._list(plan, guard, read_failure, start)
        made = Made.of(first_of(deep, plan.k), rung, reason, wanted=plan.decoding, k=plan.k)
        why = await self._reasons.of(plan, made.listing) if request.explain else NOT_ASKED
        self._count(plan, guard, made, late=deadline.passed)
        list_id = self._recorder.new_list_id()
        answer = plan.answer(made, why, list_id)
        if request.page and not paged:
            answer |= {"cursor": None, "warnings": [*answer["warnings"], _NO_PAGES]}
        elif paged:
            more = self._pages.begin(plan, deep, made, pages)
            answer["cursor"] = more["cursor"]
            answer["warnings"] += more["warnings"]
        self._recorder.shown(list_id, subject, partial(entry_of, plan, subject, made, answer))
        self._watch.shown(model.version, watched(plan, subject, made, list_id))
        self._shadows.answered(plan, made, list_id, took_s)
        self._recent.answered(plan)
        return answer

    async def _read_history(
        self, subject: Subject | None, model: ServedModel, deadline: Deadline
    ) -> tuple[Profile, Reason | None]:
        """The stored history; an empty one, and the reason, if it could not be read."""
        if subject is None:
            return Profile(None, model, _EMPTY_RECORD), None
        read_deadline = deadline.keeping(_LAST_RUNGS_S)
        if read_deadline.passed:
            return Profile(None, model, _EMPTY_RECORD), "deadline"
        try:
            return await self._states.read(subject, model, read_deadline), None
        except StoreUnavailable:
            failure: Reason = "deadline" if read_deadline.passed else "state_unavailable"
        except Exception as error:
            log.error("read_broke", **logs.where(error))
            failure = "state_unavailable"
        return Profile(None, model, _EMPTY_RECORD), failure

    async def _list(
        self, plan: Plan, guard: Guard, read_failure: Reason | None, start: LowerRung | None
    ) -> tuple[RecommendationList, Rung, Reason | None, float]:
        """The list, the rung and the reason for it, and the seconds that it took: that of before, if it is known."""
        if plan.context.hurried:
            deep, rung, reason = await self._descend(plan, guard, Decision("popular", _HURRIED))
            return deep, rung, reason, 0.0
        question, known = self._known.find(plan, guard, may_be_kept=read_failure is None and start is None)
        if known is not None:
            return known.listing, "full", None, known.took_s
        began = plan.deadline.clock()
        decision = self._decide(plan, guard, read_failure) if start is None else Decision(start, "forced")
        deep, rung, reason = await self._descend(plan, guard, decision)
        took_s = plan.deadline.clock() - began
        self._known.keep(plan, question, deep, rung, reason, took_s)
        return deep, rung, reason, took_s

    def _decide(self, plan: Plan, guard: Guard, read_failure: Reason | None) -> Decision:
        """The rung to start on. Without the stored history, the model may use only the request's own events."""
        decision = guard.decide(plan.deadline, plan.forecast)
        if decision.asks_the_model:
            plan.model.want()
        if plan.model.evicted and decision.asks_the_model:
            return replace(self._not_asked(guard, decision), reason="model_evicted")
        if plan.filtered.id is None and plan.ranked is None and decision.reason in (None, "deadline"):
            # The wait for the filter is what took the time.
            decision = replace(self._not_asked(guard, decision), reason="filter_not_ready")
        if not decision.asks_the_model:
            return decision
        if plan.allows_nothing:
            self._not_asked(guard, decision)
            return Decision("full")  # the list is known to be empty without a run
        if read_failure is None:
            return decision
        if len(plan.history):
            return replace(decision, rung="narrow", reason=read_failure, forecast_s=0.0)
        self._not_asked(guard, decision)
        return Decision("popular", read_failure)

    def _not_asked(self, guard: Guard, decision: Decision) -> Decision:
        """Takes back a decision that asks the model; returns one that does not."""
        if not decision.asks_the_model:
            return decision
        guard.observe(Outcome.UNUSED)
        return Decision("item_cf")

    async def _descend(
        self, plan: Plan, guard: Guard, decision: Decision
    ) -> tuple[RecommendationList, Rung, Reason | None]:
        """Goes down the rungs from the decided one until one gives a list."""
        if plan.allows_nothing:
            source = plan.model.engine.source if decision.asks_the_model else decision.rung
            return empty_list(cast("Source", source)), decision.rung, decision.reason
        rung, reason, from_state = decision.rung, decision.reason, True
        while rung == "full" or rung == "narrow":
            try:
                listing = await self._attempts.run(plan, guard, rung, decision, from_state=from_state)
                return listing, rung, reason
            except ModelAttemptFailed as failure:
                reason = reason or cast("Reason", failure.reason)
                # Too slow or overloaded at one width means the same at the other, so only an error is retried. The
                # retry encodes the raw events: a stored state that breaks the model must not break it for good.
                retry = rung == "full" and isinstance(failure, ModelError) and not plan.deadline.passed
                rung, from_state = "narrow" if retry else "item_cf", False
        with self._metrics.stage("fallback"):
            listing = ruled(plan, self._below_model(plan, rung))
        return listing, "popular" if listing.source == "popular" else "item_cf", reason

    def _below_model(self, plan: Plan, rung: Rung) -> RecommendationList:
        """The signals without the network: array work of less than a millisecond. Popular items if that fails."""
        fallback, k = plan.model.fallback, max(plan.pool, plan.depth)
        if rung != "popular" and not plan.deadline.passed:
            try:
                listing = fallback.by_history(plan.user_history(), k, plan.limits)
                self._states.cache.measure(plan.profile)
                return listing
            except Exception as error:
                log.error("item_cf_failed", request_id=plan.context.request_id, **logs.where(error))
        return fallback.popular(k, plan.limits)

    def _count(self, plan: Plan, guard: Guard, made: Made, *, late: bool) -> None:
        """Reports the answer to the metrics, the guard and the request's log line."""
        self._metrics.recommendations.labels(
            made.source, made.rung, made.reason or "", plan.segment, made.strategy or ""
        ).inc()
        if made.listing.ordered is not None:
            self._metrics.watch.ordered_lists.labels(plan.segment, made.listing.ordered).inc()
        if made.listing.rules:
            self._rules.count(made.listing.rules, made.source)
        guard.answered(made.rung, made.reason)
        self._canaries.answered(
            plan.placement.counted, late=late, failed=made.reason == "model_error", below=made.rung not in MODEL_RUNGS
        )
        if late:
            self._metrics.deadline_missed.labels(made.rung).inc()
        tracing.budget_left(plan.deadline.at - plan.deadline.clock())
        plan.context.source = made.source
        plan.context.facts.update(made.labels(), segment=plan.segment, k=plan.k)
