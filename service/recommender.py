"""One answer to `/recommend`, from the request to the list: read `Recommender.recommend` from top to bottom.

    read the record → choose the decoding → choose the rung → one engine run → the answer
                                                  ↘ any failure: one rung down ↙

The ladder is full → narrow → item_cf → popular. There is always an answer, and it says which rung gave it and
why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from service import logs
from service.call import Call
from service.deadline import Clock, Deadline
from service.decoding import Decoding
from service.engine import Job, Ranking
from service.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, StateStale, StoreUnavailable
from service.fallback import Constraints, Listing
from service.guard import Decision, Guard, ModelRung, Outcome, Reason, Rung
from service.history import Past, past, subject_of
from service.keeper import Encoding, StateKeeper
from service.metrics import Metrics
from service.plan import Plan
from service.policies import PolicyBook
from service.records import Subject, UserRecord
from service.schemas import RecommendRequest
from service.segments import FACT_WINDOW, facts
from service.served import ServedModel

log = logs.get(__name__)

_NOBODY = UserRecord("", ())
_GREEDY = Decoding("greedy")
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
        *,
        budget_ms: float,
        budget_max_ms: float,
        reserve_ms: float,
        wall_clock: Clock = time.time,
    ) -> None:
        self._model = model
        self._states = states
        self._policies = policies
        self._guard = guard
        self._metrics = metrics
        self._budget_ms, self._budget_max_ms, self._reserve_ms = budget_ms, budget_max_ms, reserve_ms
        self._wall_clock = wall_clock

    async def recommend(self, request: RecommendRequest, call: Call) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            InvalidRequest: the request names a segment or a filter that does not exist.
        """
        budget_ms = min(request.budget_ms or self._budget_ms, self._budget_max_ms)
        deadline = call.deadline(budget_ms)
        model = self._model()
        record, trouble = await self._read(subject_of(request), model, deadline)
        plan = self._plan(request, call, model, record, budget_ms, deadline)
        decision = self._decide(plan, trouble)
        listing, rung, reason = await self._descend(plan, decision)
        if len(listing.items) < request.k and reason is None:
            reason = "not_enough_items"
        self._count(plan, listing, rung, reason, late=deadline.passed)
        return plan.answer(listing, rung, reason)

    # -- before the model

    async def _read(
        self, subject: Subject | None, model: ServedModel, deadline: Deadline
    ) -> tuple[UserRecord, Reason | None]:
        """The stored record, or nobody's and the reason why."""
        if subject is None:
            return _NOBODY, None
        in_time = deadline.keeping(_LAST_RUNGS_S)
        if in_time.passed:
            return _NOBODY, "deadline"
        try:
            return await self._states.read(subject, model, in_time), None
        except StoreUnavailable:
            return _NOBODY, "deadline" if in_time.passed else "state_unavailable"
        except Exception as error:
            log.error("read_broke", **logs.where(error))
            return _NOBODY, "state_unavailable"

    def _plan(
        self,
        request: RecommendRequest,
        call: Call,
        model: ServedModel,
        record: UserRecord,
        budget_ms: float,
        deadline: Deadline,
    ) -> Plan:
        now_ms = int(self._wall_clock() * 1000.0)
        events = past(record.events, request.events, now_ms)
        segment, decoding = self._decoding(request, model, events, now_ms)
        excluded = [*request.exclude, *(events.item_ids if request.exclude_seen else ())]
        limits = Constraints(model.allowed(request.filter or {}), np.unique(model.indices(excluded)))
        return Plan(
            request=request,
            call=call,
            model=model,
            subject=subject_of(request),
            record=record,
            past=events,
            segment=segment,
            decoding=decoding,
            limits=limits,
            budget_ms=budget_ms,
            deadline=deadline,
            now_ms=now_ms,
        )

    def _decoding(
        self, request: RecommendRequest, model: ServedModel, events: Past, now_ms: int
    ) -> tuple[str, Decoding]:
        policies = self._policies.current
        if request.segment is not None:
            segment = policies.named(request.segment)
        else:
            recent = model.categories(events.item_ids[-FACT_WINDOW:])
            known = facts(events.item_ids, recent, events.last_ms, now_ms, model.catalogue.n_categories)
            segment = policies.choose(known)
        chosen = request.decoding.build() if request.decoding is not None else segment.decoding.build()
        return segment.name, chosen

    def _decide(self, plan: Plan, trouble: Reason | None) -> Decision:
        """Without the stored history the model may only speak of what the request itself brought along."""
        decision = self._guard.decide(plan.deadline, plan.model.batcher.depth)
        if trouble is None or not decision.asks_the_model:
            return decision
        if len(plan.past):
            return Decision("narrow", trouble)
        self._guard.observe(Outcome.UNUSED)
        return Decision("popular", trouble)

    # -- the ladder

    async def _descend(self, plan: Plan, decision: Decision) -> tuple[Listing, Rung, Reason | None]:
        rung, reason, from_state = decision.rung, decision.reason, True
        while rung == "full" or rung == "narrow":
            try:
                return await self._by_model(plan, rung, from_state=from_state), rung, reason
            except ModelAttemptFailed as failure:
                reason = reason or cast("Reason", failure.reason)
                # What was too slow or too much for one width is so for the other. The second attempt starts from
                # the raw events: a stored state that breaks the model must not break it for good.
                retry = rung == "full" and isinstance(failure, ModelError) and not plan.deadline.passed
                rung, from_state = "narrow" if retry else "item_cf", False
        with self._metrics.stage("fallback"):
            listing = self._below_model(plan, rung)
        return listing, "popular" if listing.source == "popular" else "item_cf", reason

    async def _by_model(self, plan: Plan, rung: ModelRung, *, from_state: bool) -> Listing:
        """One attempt at the engine; the guard learns how it went, whatever happens.

        Raises:
            StateStale: there is more history to encode than fits; it is encoded behind the answer.
            ModelAttemptFailed: anything else.
        """
        began, outcome, encoding, job = plan.deadline.clock(), Outcome.UNUSED, None, None
        in_time = plan.deadline.keeping(self._reserve_ms / 1000.0)
        try:
            encoding = self._states.encoding(plan.model, plan.record, plan.past, from_state=from_state)
            if not self._guard.encoding_fits(rung, in_time, plan.model.batcher.depth, len(encoding.events)):
                raise StateStale("predicted to take too long")
            job = await self._job(plan, rung, encoding, in_time)
            ranking = await plan.model.batcher.submit(job, in_time)
            outcome = Outcome.OK
        except DeadlineExceeded as late:
            if encoding is not None:
                self._catch_up(plan, encoding)
            outcome = Outcome.UNUSED if isinstance(late, StateStale) else Outcome.LATE
            if job is not None and self._guard.encoding_dominates(rung, len(job.item)):
                raise StateStale("took too long") from late
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
            if from_state:  # the second attempt belongs to the same decision, and that has been reported
                self._guard.observe(outcome, plan.deadline.clock() - began)
        self._keep_state(plan, encoding, ranking)
        listing = Listing(ranking.items, ranking.scores, "gpt4rec")
        if len(listing.items) < plan.request.k:
            listing = plan.model.fallback.fill(listing, plan.request.k, plan.limits)
        return listing

    async def _job(self, plan: Plan, rung: ModelRung, encoding: Encoding, deadline: Deadline) -> Job:
        return Job(
            state=encoding.base,
            item=encoding.events.item,
            type=encoding.events.type,
            time_ms=encoding.events.time_ms,
            from_start=encoding.from_start,
            context=plan.model.vocabulary.context.encode(plan.context()),
            gap_ms=plan.gap_ms(),
            decoding=plan.decoding,
            k=plan.request.k,
            allowed=await plan.model.filter_id(plan.request.filter or {}, deadline),
            excluded=plan.limits.excluded,
            seed=plan.seed(),
            width=_GREEDY.width(plan.request.k) if rung == "narrow" else None,
        )

    def _below_model(self, plan: Plan, rung: Rung) -> Listing:
        """Plain array work, a fraction of a millisecond; popularity where even that does not fit or fails."""
        fallback, k = plan.model.fallback, plan.request.k
        if rung != "popular" and not plan.deadline.passed:
            try:
                events = plan.model.vocabulary.events(plan.past.item_ids, plan.past.types, plan.past.times_ms)
                return fallback.by_history(events.item, k, plan.limits)
            except Exception as error:
                log.error("item_cf_failed", request_id=plan.call.request_id, **logs.where(error))
        return fallback.popular(k, plan.limits)

    # -- after the model: nothing here delays the answer

    def _keep_state(self, plan: Plan, encoding: Encoding, ranking: Ranking) -> None:
        """Stores the new state; where inline events are in it, the stored events are encoded on their own."""
        if plan.subject is None or not encoding.stale:
            return
        if plan.past.inline:
            self._catch_up(plan, encoding)
            return
        self._states.keep(plan.subject, plan.model, plan.record, ranking.state)

    def _catch_up(self, plan: Plan, encoding: Encoding) -> None:
        """A history too long for one budget is encoded behind the answer: the next request has its state."""
        if plan.subject is not None and encoding.stale:
            self._states.catch_up(plan.subject, plan.model, plan.record)

    def _count(self, plan: Plan, listing: Listing, rung: Rung, reason: Reason | None, *, late: bool) -> None:
        strategy = plan.decoding.strategy
        self._metrics.recommendations.labels(listing.source, reason or "", plan.segment, strategy).inc()
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
