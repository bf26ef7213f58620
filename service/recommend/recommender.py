"""One answer to `/recommend`, from the request to the list: read `Recommender.recommend` from top to bottom.

    read the history → choose the decoding → choose the rung → one decoder run → the answer
                                                  ↘ any failure: one rung down ↙

The ladder is full → narrow → item_cf → popular. There is always an answer, and it says which rung gave it and
why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.ma  # np.unique loads it when it is first called, which must not be while a request waits
import numpy.typing as npt

from service.common import logs
from service.common.deadline import Clock, Deadline
from service.common.errors import (
    DeadlineExceeded,
    FilterNotReady,
    ModelAttemptFailed,
    ModelError,
    Overloaded,
    StateStale,
    StoreUnavailable,
)
from service.common.metrics import Metrics
from service.common.request_context import RequestContext
from service.engine.decoding import Decoding
from service.engine.fallback import Constraints, RecommendationList
from service.engine.jobs import DecodedList, DecodeJob, encode_key
from service.guard.guard import Decision, Guard, ModelRung, Outcome, Reason, Rung
from service.history.history import History, merge_events
from service.history.profile import Profile, facts_of
from service.history.pseudonyms import Pseudonyms
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.policies.policies import PolicyBook
from service.recommend.request_plan import Plan
from service.schemas.requests import RecommendRequest
from service.store.records import Subject, UserRecord

log = logs.get(__name__)

_NOTHING = UserRecord("", ())
# Kept back from the read of the history for the rungs that need no engine.
_LAST_RUNGS_S = 0.002


class Recommender:
    """Guarantees: an answer before the deadline, unless the event loop itself is late; every item in the catalogue,
    allowed and not excluded; never a gpt4rec list that has not seen every acknowledged event, unless its reason says
    that the log could not be read and the request brought events of its own.
    """

    def __init__(
        self,
        model: Callable[[], ServedModel],
        states: StateKeeper,
        policies: PolicyBook,
        guard: Guard,
        metrics: Metrics,
        ids: Pseudonyms,
        *,
        budget_ms: float,
        budget_max_ms: float,
        wall_clock: Clock = time.time,
    ) -> None:
        self._model = model
        self._states = states
        self._policies = policies
        self._guard = guard
        self._metrics = metrics
        self._ids = ids
        self._budget_ms, self._budget_max_ms = budget_ms, budget_max_ms
        self._wall_clock = wall_clock

    async def recommend(self, request: RecommendRequest, call: RequestContext) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            InvalidRequest: the request names a segment or a filter that does not exist.
        """
        budget_ms = min(request.budget_ms or self._budget_ms, self._budget_max_ms)
        deadline = call.deadline(budget_ms)
        model = self._model()
        profile, trouble = await self._read(self._ids.subject(request.user_id, request.session_id), model, deadline)
        allowed = await model.allowed(request.filter or {})
        plan = self._plan(request, call, profile, allowed, budget_ms, deadline)
        decision = self._decide(plan, trouble)
        listing, rung, reason = await self._descend(plan, decision)
        if len(listing.items) < request.k and reason is None:
            reason = "not_enough_items"
        self._count(plan, listing, rung, reason, late=deadline.passed)
        return plan.answer(listing, rung, reason)

    # -- before the model

    async def _read(
        self, subject: Subject | None, model: ServedModel, deadline: Deadline
    ) -> tuple[Profile, Reason | None]:
        """The stored history, or nobody's and the reason why."""
        nobody = Profile(None, model, _NOTHING)
        if subject is None:
            return nobody, None
        in_time = deadline.keeping(_LAST_RUNGS_S)
        if in_time.passed:
            return nobody, "deadline"
        try:
            return await self._states.read(subject, model, in_time), None
        except StoreUnavailable:
            return nobody, "deadline" if in_time.passed else "state_unavailable"
        except Exception as error:
            log.error("read_broke", **logs.where(error))
            return nobody, "state_unavailable"

    def _plan(
        self,
        request: RecommendRequest,
        call: RequestContext,
        profile: Profile,
        allowed: npt.NDArray[np.bool_] | None,
        budget_ms: float,
        deadline: Deadline,
    ) -> Plan:
        now_ms = int(self._wall_clock() * 1000.0)
        model = profile.model
        events = merge_events(profile.record.events, request.events, now_ms) if request.events else profile.history
        segment, decoding = self._decoding(request, profile, events, now_ms)
        return Plan(
            request=request,
            call=call,
            model=model,
            profile=profile,
            history=events,
            segment=segment,
            decoding=decoding,
            limits=Constraints(allowed, _excluded(request, profile, events)),
            budget_ms=budget_ms,
            deadline=deadline,
            now_ms=now_ms,
        )

    def _decoding(
        self, request: RecommendRequest, profile: Profile, events: History, now_ms: int
    ) -> tuple[str, Decoding]:
        policies = self._policies.current
        if request.segment is not None:
            segment = policies.named(request.segment)
        elif events is profile.history:
            segment = policies.choose(profile.facts(now_ms))
        else:
            segment = policies.choose(facts_of(events, profile.model).at(events.last_ms, now_ms))
        chosen = request.decoding.build() if request.decoding is not None else segment.decoding.build()
        return segment.name, chosen

    def _decide(self, plan: Plan, trouble: Reason | None) -> Decision:
        """Without the stored history the model may only speak of what the request itself brought along."""
        decision = self._guard.decide(plan.deadline, plan.forecast)
        if trouble is None or not decision.asks_the_model:
            return decision
        if len(plan.history):
            return replace(decision, rung="narrow", reason=trouble, forecast_s=0.0)
        self._guard.observe(Outcome.UNUSED)
        return Decision("popular", trouble)

    # -- the ladder

    async def _descend(self, plan: Plan, decision: Decision) -> tuple[RecommendationList, Rung, Reason | None]:
        rung, reason, from_state = decision.rung, decision.reason, True
        while rung == "full" or rung == "narrow":
            try:
                listing = await self._by_model(plan, rung, decision, from_state=from_state)
                return listing, rung, reason
            except ModelAttemptFailed as failure:
                reason = reason or cast("Reason", failure.reason)
                # What was too slow or too much for one width is so for the other. The second attempt starts from
                # the raw events: a stored state that breaks the model must not break it for good.
                retry = rung == "full" and isinstance(failure, ModelError) and not plan.deadline.passed
                rung, from_state = "narrow" if retry else "item_cf", False
        with self._metrics.stage("fallback"):
            listing = self._below_model(plan, rung)
        return listing, "popular" if listing.source == "popular" else "item_cf", reason

    async def _by_model(
        self, plan: Plan, rung: ModelRung, decision: Decision, *, from_state: bool
    ) -> RecommendationList:
        """One attempt at the engine; the guard learns how it went, whatever happens.

        Raises:
            StateStale: there is more history to encode than fits; it is encoded behind the answer.
            ModelAttemptFailed: anything else.
        """
        began, outcome = plan.deadline.clock(), Outcome.UNUSED
        in_time = plan.deadline.keeping(self._guard.reserve_s(plan.deadline.remaining()))
        try:
            h = await self._hidden(plan, rung, in_time, from_state=from_state)
            job = await self._job(plan, rung, h, in_time)
            listed = await plan.model.decoder.submit(job, in_time)
            outcome = Outcome.OK
        except StateStale as stale:
            outcome = Outcome.LATE if stale.tried else Outcome.UNUSED
            raise
        except FilterNotReady:
            raise
        except Overloaded:
            outcome = Outcome.WAITED
            raise
        except DeadlineExceeded:
            outcome = Outcome.LATE
            raise
        except ModelError:
            outcome = Outcome.FAILED
            raise
        except ModelAttemptFailed:
            raise
        except Exception as error:
            outcome = Outcome.FAILED
            log.error("attempt_broke", request_id=plan.call.request_id, **logs.where(error))
            raise ModelError(type(error).__name__) from error
        finally:
            # The second attempt belongs to the same decision, and that has been reported.
            if from_state and self._guard.observe(outcome, plan.deadline.clock() - began, decision):
                self._metrics.attempted(outcome)
        listing = RecommendationList(*_known(listed, plan.model), "gpt4rec")
        if len(listing.items) < plan.request.k:
            listing = plan.model.fallback.fill(listing, plan.request.k, plan.limits)
        return listing

    async def _hidden(
        self, plan: Plan, rung: ModelRung, deadline: Deadline, *, from_state: bool
    ) -> npt.NDArray[np.float32]:
        """The hidden state to decode from, brought up to date.

        Raises:
            StateStale: not before the deadline.
        """
        work = self._states.pending(plan.profile, plan.history, from_state=from_state)
        if work is None:
            return await self._states.hidden(plan.profile, plan.history, None, deadline)
        if plan.history.inline:
            self._states.catch_up(plan.profile)  # the state of the request's own events is not kept
        if not self._encoding_fits(plan, rung, len(work.events), deadline):
            self._states.catch_up(plan.profile)
            raise StateStale("predicted to take too long")
        try:
            return await self._states.hidden(plan.profile, plan.history, work, deadline)
        except DeadlineExceeded as late:
            self._states.catch_up(plan.profile)
            raise StateStale("took too long", tried=True) from late

    def _encoding_fits(self, plan: Plan, rung: ModelRung, events: int, deadline: Deadline) -> bool:
        """Whether so many events can be encoded before the list is decoded.

        That the list alone can be decoded is decided: where it cannot any more, the encoding is not to blame.
        """
        decoding = plan.forecast(rung).seconds
        if not events or not self._guard.fits(decoding, deadline):
            return True
        return self._guard.fits(plan.model.encoder.forecast(encode_key(events)).seconds + decoding, deadline)

    async def _job(self, plan: Plan, rung: ModelRung, h: npt.NDArray[np.float32], deadline: Deadline) -> DecodeJob:
        return DecodeJob(
            h=h,
            context=plan.model.vocabulary.context.encode(plan.context()),
            gap_ms=plan.gap_ms(),
            decoding=plan.decoding,
            k=plan.request.k,
            allowed=await plan.model.filter_id(plan.request.filter or {}, deadline),
            excluded=plan.limits.excluded,
            seed=plan.seed(),
            width=plan.width(rung) if rung == "narrow" else None,
        )

    def _below_model(self, plan: Plan, rung: Rung) -> RecommendationList:
        """Plain array work, a fraction of a millisecond; popularity where even that does not fit or fails."""
        fallback, k = plan.model.fallback, plan.request.k
        if rung != "popular" and not plan.deadline.passed:
            try:
                return fallback.by_history(plan.model.places(plan.history.item_ids), k, plan.limits)
            except Exception as error:
                log.error("item_cf_failed", request_id=plan.call.request_id, **logs.where(error))
        return fallback.popular(k, plan.limits)

    def _count(self, plan: Plan, listing: RecommendationList, rung: Rung, reason: Reason | None, *, late: bool) -> None:
        strategy = plan.decoding.strategy
        self._metrics.recommendations.labels(listing.source, reason or "", plan.segment, strategy).inc()
        self._guard.answered(listing.source)
        if late:
            self._metrics.deadline_missed.labels(rung).inc()
        plan.call.source = listing.source
        plan.call.facts.update(
            source=listing.source,
            rung=rung,
            reason=reason,
            segment=plan.segment,
            strategy=strategy,
            k=plan.request.k,
        )


def _excluded(request: RecommendRequest, profile: Profile, events: History) -> npt.NDArray[np.int64]:
    """[m] different indices that must not be listed, ascending."""
    model = profile.model
    if not request.exclude_seen:
        return np.unique(model.indices(request.exclude))
    seen = profile.seen if events is profile.history else np.unique(model.indices(events.item_ids))
    return np.union1d(seen, model.indices(request.exclude)) if request.exclude else seen


def _known(listed: DecodedList, model: ServedModel) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Items and scores of a list, without items that came into the catalogue after the request did."""
    known = listed.items < len(model.catalogue.item_ids)
    return (listed.items, listed.scores) if known.all() else (listed.items[known], listed.scores[known])
