"""One answer to `/recommend`, from the request to the list: read `Recommender.recommend` from top to bottom.

    read the record → choose the decoding → choose the rung → one engine run → the answer
                                                  ↘ any failure: one rung down ↙

The ladder is full → narrow → item_cf → popular. There is always an answer, and it says which rung gave it and
why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import numpy as np

from service import logs
from service.call import Call
from service.deadline import Clock, Deadline
from service.decoding import Decoding
from service.engine import Job, Ranking
from service.errors import DeadlineExceeded, ModelAttemptFailed, ModelError, StoreUnavailable
from service.fallback import Constraints, Listing
from service.guard import Decision, Guard, ModelRung, Outcome, Reason, Rung
from service.history import Past, past, subject_of
from service.keeper import Encoding, StateKeeper
from service.metrics import Metrics
from service.policies import PolicyBook
from service.records import Subject, UserRecord
from service.schemas import RecommendRequest
from service.segments import FACT_WINDOW, facts
from service.served import ServedModel, ranked_items

log = logs.get(__name__)

_NOBODY = UserRecord("", ())
_GREEDY = Decoding("greedy")
# Kept back from the read of the history for the rungs that need no engine.
_LAST_RUNGS_S = 0.002


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known of an answer before it is computed."""

    request: RecommendRequest
    call: Call
    model: ServedModel
    subject: Subject | None
    record: UserRecord
    past: Past
    segment: str
    decoding: Decoding
    limits: Constraints
    budget_ms: float
    deadline: Deadline
    now_ms: int


class Recommender:
    """Guarantees: an answer before the deadline, unless the event loop itself is late; never a gpt4rec list
    that has not seen every acknowledged event; every item in the catalogue, allowed and not excluded.
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
        return _answer(plan, listing, rung, reason)

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
        rung, reason = decision.rung, decision.reason
        while rung == "full" or rung == "narrow":
            try:
                return await self._by_model(plan, rung), rung, reason
            except ModelAttemptFailed as failure:
                reason = reason or cast("Reason", failure.reason)
                # What was too slow or too much for one width is so for the other.
                retry = rung == "full" and isinstance(failure, ModelError) and not plan.deadline.passed
                rung = "narrow" if retry else "item_cf"
        with self._metrics.stage("fallback"):
            listing = self._below_model(plan, rung)
        return listing, "popular" if listing.source == "popular" else "item_cf", reason

    async def _by_model(self, plan: Plan, rung: ModelRung) -> Listing:
        """One attempt at the engine; the guard learns how it went, whatever happens."""
        began, outcome = plan.deadline.clock(), Outcome.UNUSED
        try:
            ranking = await self._rank(plan, rung)
            outcome = Outcome.OK
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
            self._guard.observe(outcome, plan.deadline.clock() - began)
        listing = Listing(ranking.items, ranking.scores, "gpt4rec")
        if len(listing.items) < plan.request.k:
            listing = plan.model.fallback.fill(listing, plan.request.k, plan.limits)
        return listing

    async def _rank(self, plan: Plan, rung: ModelRung) -> Ranking:
        in_time = plan.deadline.keeping(self._reserve_ms / 1000.0)
        encoding = self._states.encoding(plan.model, plan.record, plan.past)
        job = Job(
            state=encoding.base,
            item=encoding.events.item,
            type=encoding.events.type,
            time_ms=encoding.events.time_ms,
            from_start=encoding.from_start,
            context=plan.model.vocabulary.context.encode(_context(plan.request)),
            gap_ms=self._gap_ms(plan),
            decoding=plan.decoding,
            k=plan.request.k,
            allowed=await plan.model.filter_id(plan.request.filter or {}, in_time),
            excluded=plan.limits.excluded,
            seed=_seed(plan),
            width=_GREEDY.width(plan.request.k) if rung == "narrow" else None,
        )
        try:
            ranking = await plan.model.batcher.submit(job, in_time)
        except DeadlineExceeded:
            self._catch_up(plan, encoding)
            raise
        self._keep_state(plan, encoding, ranking)
        return ranking

    def _gap_ms(self, plan: Plan) -> int:
        vocabulary = plan.model.vocabulary
        return vocabulary.context.gap(plan.past.last_ms if vocabulary.has_time else None, plan.now_ms)

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


def _context(request: RecommendRequest) -> Mapping[str, Any]:
    """Slots of the decoder's context: the scene and the control codes win over features of the same name."""
    scene = {} if request.scene is None else {"scene": request.scene}
    return {**(request.features or {}), **(request.context or {}), **scene}


def _seed(plan: Plan) -> int:
    """The caller's seed; else, for a sampled list, one that another request will not have."""
    if plan.request.seed is not None:
        return plan.request.seed
    if not plan.decoding.sampled:
        return 0
    return int.from_bytes(blake2b(plan.call.request_id.encode(), digest_size=8).digest(), "big") >> 1


def _answer(plan: Plan, listing: Listing, rung: Rung, reason: Reason | None) -> dict[str, Any]:
    return {
        "request_id": plan.call.request_id,
        "user_id": plan.request.user_id,
        "items": ranked_items(plan.model.catalogue, listing.items, listing.scores),
        "source": listing.source,
        "rung": rung,
        "degraded": rung != "full",
        "reason": reason,
        "segment": plan.segment,
        "strategy": plan.decoding.strategy,
        "model_version": plan.model.version,
        "budget_ms": plan.budget_ms,
        "latency_ms": round(plan.call.elapsed_ms(), 3),
    }
