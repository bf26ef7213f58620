"""The plan of an answer: everything about a request that is known before a list is computed. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.ma  # np.unique imports it on its first call, which must not happen while a request waits
import numpy.typing as npt

from service.batching.run_costs import Forecast
from service.batching.together import Together
from service.common.deadline import Deadline
from service.common.request_context import RequestContext
from service.common.shares import within_share
from service.engine.decoding import MAX_WIDTH, RANKED_WIDTH, Decoding
from service.engine.fallback import Constraints
from service.engine.jobs import RANKED_KEY, DecodedList, DecodeJob, decode_key
from service.experiments.arms import Placement
from service.guard.guard import ModelRung
from service.history.history import History, merge_events
from service.history.profile import Profile, facts_of
from service.lifecycle.list_filter import ListFilter
from service.lifecycle.served_model import ServedModel
from service.policies.policies import Policies, Segment
from service.recommend.list_seed import list_seed
from service.recommend.list_warnings import list_warnings, not_kept
from service.recommend.made import Made
from service.recommend.named_items import named_items
from service.recommend.page_token import TAIL_MAX
from service.rules.ruling import Ruling, ruling_of
from service.schemas.recommend_request import RecommendRequest
from service.signals.item_values import SignalSums
from service.signals.user_history import UserHistory
from service.store.records import Subject

_GREEDY = Decoding("greedy")
# Candidates for each item of a list with rules.
_POOL_OF_EACH = 4

# The warning of an answer that was made without the stored history.
HISTORY_NOT_READ = "the stored history could not be read: the list may contain items that were seen before"


@dataclass(frozen=True, slots=True)
class Why:
    """The reasons for the items of a list.

    Attributes:
        because: `because` of each item, in the order of the list; empty if there are no reasons.
        warnings: Why there are none, in sentences, if the request asked for them.
    """

    because: Sequence[Mapping[str, Any]] = ()
    warnings: tuple[str, ...] = ()


NOT_ASKED = Why()


@dataclass(slots=True, eq=False)
class Plan:
    """A request, and the choices made for its answer. Never changed; to freeze it would take as long as some stages.

    Attributes:
        request: The validated body.
        context: When the request began and arrived, and its id.
        subject: Whose list it is; the profile does not say so where the history could not be read.
        model: The model that answers.
        profile: The stored history, empty if there is none or it could not be read.
        history: The history to answer from: the profile's own, or one with the events of the request merged in.
        segment: Name of the user's segment.
        decoding: How a list is decoded at full width.
        may_explore: Whether chance decided if it is the exploration of the segment.
        explored: Whether it is.
        ordered: Whether the order model of the artefact, if it has one, may put the list into order.
        placement: The arms of the subject, and the model and policies that follow from them.
        filtered: The filter of the request.
        limits: The items that may be listed.
        ranked: [m] items to rank instead of a choice from the catalogue, those of the request that may be listed.
        k: Number of items wanted.
        depth: Number of items to rank: k, or more if there will be pages.
        warnings: What the caller must know about the answer, in sentences.
        budget_ms: Time budget of the answer.
        deadline: When the answer must have left.
        now_ms: Time of the request, in epoch milliseconds.
        ruling: The rules of the list and its diversity; None if there are none.
        together: The requests that the list is made together with; None if it came alone.
    """

    request: RecommendRequest
    context: RequestContext
    subject: Subject | None
    model: ServedModel
    profile: Profile
    history: History
    segment: str
    decoding: Decoding
    may_explore: bool
    explored: bool
    ordered: bool
    placement: Placement
    filtered: ListFilter
    limits: Constraints
    ranked: npt.NDArray[np.int64] | None
    k: int
    depth: int
    warnings: tuple[str, ...]
    budget_ms: float
    deadline: Deadline
    now_ms: int
    ruling: Ruling | None = None
    together: Together | None = None
    _seed: int | None = field(default=None, init=False, repr=False)

    @property
    def seed(self) -> int:
        """Seed of the list, if it is sampled. Most lists are not, and need none."""
        if self._seed is None:
            self._seed = list_seed(self.request, self.context, self.subject, self.profile.record.version, self.now_ms)
        return self._seed

    @property
    def pool(self) -> int:
        """Number of items that are ranked for the list; rules choose among more than they list."""
        if self.ruling is None:
            return self.k
        return max(self.k, min(MAX_WIDTH, _POOL_OF_EACH * self.k)) if self.ranked is None else len(self.ranked)

    def user_history(self) -> UserHistory:
        """Returns the history as signals read it."""
        return self.profile.user_history(self.history)

    def width(self, rung: ModelRung) -> int:
        """Returns the beam width at a rung: the nodes kept at each level."""
        if self.ranked is not None:
            return RANKED_WIDTH
        if rung == "narrow":
            return _GREEDY.width(self.decoded)
        return self.decoding.width(self.decoded)

    @property
    def ranked_pool(self) -> int:
        """How many items the model ranks for rules to choose from; 0 without rules."""
        return 0 if self.ruling is None else self.pool

    def forecast(self, rung: ModelRung) -> Forecast:
        """Returns when the list would be decoded if the job were submitted now."""
        decoder, key = self.model.decoder, RANKED_KEY
        if self.ranked is None:
            key = decode_key(self.width(rung), self.decoding, self.decoded, self.ranked_pool)
        return decoder.forecast(key) if self.together is None else self.together.forecast(decoder, key)

    async def decode(self, job: DecodeJob, deadline: Deadline) -> DecodedList:
        """Runs the job of the list, with those of the requests that it came together with."""
        decoder = self.model.decoder
        return await (
            decoder.submit(job, deadline) if self.together is None else self.together.submit(decoder, job, deadline)
        )

    @property
    def decoded(self) -> int:
        """Number of items that the model lists; what a list of many pages has more, others rank."""
        return self.depth if self.ranked is not None else min(self.depth, MAX_WIDTH)

    @property
    def allows_nothing(self) -> bool:
        """Whether it is known that no item may be listed."""
        return self.filtered.allows_nothing or (self.ranked is not None and not len(self.ranked))

    def features(self) -> Mapping[str, Any]:
        """Returns the features of the user: those of the request; where it names none, the stored ones."""
        given = self.request.features
        return self.profile.record.features.values if given is None else given

    def decoder_context(self) -> Mapping[str, Any]:
        """Returns the slots of the decoder's context; scene and control codes override features of the same name."""
        request = self.request
        scene = {} if request.scene is None else {"scene": request.scene}
        return {**self.features(), **(request.context or {}), **scene}

    def gap_ms(self) -> int:
        """Returns the time since the last event, as the decoder takes it."""
        vocabulary = self.model.vocabulary
        return vocabulary.context.gap(self.history.last_ms if vocabulary.has_time else None, self.now_ms)

    def group(self) -> int:
        """Returns the number of the group of users whose weights rank the list: the segment, if it has its own."""
        return self.model.ranker.group(self.placement.ranker or self.segment)

    def signals(self) -> SignalSums:
        """Returns what the user's signals add to the scores of items."""
        return self.profile.signals(self.history, self.group())

    def answer(self, made: Made, why: Why, list_id: str) -> dict[str, Any]:
        """Returns the body of the answer.

        Args:
            made: The list.
            why: The reasons for its items, if the request asked.
            list_id: Its id.
        """
        listing = made.listing
        items = self.model.listed(listing.items, listing.scores, self.request.fields)
        for item, because in zip(items, why.because, strict=False):
            item["because"] = because
        answer: dict[str, Any] = {
            "request_id": self.context.request_id,
            "list_id": list_id,
            "user_id": self.request.user_id,
            "items": items,
            "source": made.source,
            "scorers": list(made.listing.scorers),
            "rung": made.rung,
            "degraded": made.rung != "full",
            "reason": made.reason,
            "warnings": [*self.warnings, *(not_kept(listing.rules) if listing.rules else ()), *why.warnings],
            "segment": self.segment,
            "strategy": made.strategy,
            "model_version": self.model.version,
            "arms": dict(self.placement.arms),
            "budget_ms": self.budget_ms,
            "latency_ms": round(self.context.elapsed_ms(), 3),
        }
        if listing.rules:
            answer["rules"] = [{"name": one.name, "result": one.result} for one in listing.rules]
        return answer


def make_plan(
    request: RecommendRequest,
    context: RequestContext,
    profile: Profile,
    filtered: ListFilter,
    placement: Placement,
    *,
    subject: Subject | None,
    history_read: bool,
    budget_ms: float,
    deadline: Deadline,
    now_ms: int,
    together: Together | None = None,
) -> Plan:
    """Merges the events of the request into the history, and chooses the segment, the decoding and the exclusions.

    Args:
        request: The validated body.
        context: When the request began and arrived, and its id.
        profile: The stored history.
        filtered: The filter of the request.
        placement: What answers the subject.
        subject: Whose list it is.
        history_read: Whether `profile` is what is stored; False if the store could not be read.
        budget_ms: Time budget of the answer.
        deadline: When the answer must have left.
        now_ms: Time of the request, in epoch milliseconds.
        together: The requests of its batch.

    Raises:
        InvalidRequest: The request names a segment that does not exist.
    """
    history = merge_events(profile.record.events, request.events, now_ms) if request.events else profile.history
    history = _of_user(request, profile, history)
    exclude_seen = profile.model.excludes_seen(request.exclude_seen)
    segment = _segment(request, profile, history, placement.policies, now_ms)
    seed = partial(list_seed, request, context, subject, profile.record.version, now_ms)
    may_explore = _may_explore(segment, request)
    explored = may_explore and _explores(segment, seed())
    decoding = _decoding(request, segment, explored=explored)
    limits = Constraints(filtered.allowed, _excluded(request, profile, exclude_seen))
    named = None if request.candidates is None else named_items(request.candidates, profile.model, limits)
    k = request.k if named is None or "k" in request.model_fields_set else max(1, len(named.items))
    return Plan(
        request=request,
        context=context,
        subject=subject,
        model=profile.model,
        profile=profile,
        history=history,
        segment=segment.name,
        decoding=decoding,
        may_explore=may_explore,
        explored=explored,
        ordered=named is None and _is_ordered(segment, decoding, explored=explored),
        placement=placement,
        filtered=filtered,
        limits=limits if named is None else named.limits,
        ranked=None if named is None else named.items,
        k=k,
        depth=k + TAIL_MAX if request.page else k,
        warnings=(
            *(() if history_read or not exclude_seen else (HISTORY_NOT_READ,)),
            *list_warnings(request, profile.model).texts,
            *(() if named is None else named.warnings),
        ),
        budget_ms=budget_ms,
        deadline=deadline,
        now_ms=now_ms,
        ruling=_ruling(request, segment, placement.policies, seed, now_ms),
        together=together,
    )


def _ruling(
    request: RecommendRequest, segment: Segment, policies: Policies, seed: Callable[[], int], now_ms: int
) -> Ruling | None:
    """The rules and the diversity of the list: those of the request, of its segment and of all lists.

    Shares are drawn by the seed, so that lists which stay the same keep their rules.
    """
    if not request.rules and request.diversity is None:
        if not request.policy_rules or not (policies.rules or segment.rules or segment.diversity):
            return None
        return policies.ruling(segment, now_ms, str(seed()))
    given, diversity = [request.rules or ()], request.diversity
    if request.policy_rules:
        given += [segment.rules or (), policies.rules or ()]
        diversity = diversity or segment.diversity
    return ruling_of(given, diversity, now_ms=now_ms, of=str(seed()))


def _of_user(request: RecommendRequest, profile: Profile, history: History) -> History:
    """The history with the features of the request, where the encoder reads them and the stored ones are others."""
    if request.features is None or not profile.model.reads_features:
        return history
    stored, given = profile.user_rows, profile.model.user_rows(request.features)
    none = np.zeros(len(profile.model.vocabulary.context.slots), np.int64)
    rows = tuple((none if given is None else given).tolist())
    return history if rows == tuple((none if stored is None else stored).tolist()) else replace(history, user=rows)


def _segment(request: RecommendRequest, profile: Profile, history: History, policies: Policies, now_ms: int) -> Segment:
    """The segment that the request names, or that the facts of the history choose."""
    if request.segment is not None:
        return policies.named(request.segment)
    if history is profile.history:
        return policies.choose(profile.facts(now_ms))
    return policies.choose(facts_of(history, profile.model).at(history.last_ms, now_ms))


def _may_explore(segment: Segment, request: RecommendRequest) -> bool:
    """Whether chance decides if the list explores; a request that says how to decode is not asked."""
    return segment.explore is not None and request.decoding is None and request.candidates is None


def _explores(segment: Segment, seed: int) -> bool:
    """Whether the list is among the exploration share of the segment; the same for the same seed."""
    return segment.explore is not None and within_share(segment.explore.share, f"explore {segment.name}", str(seed))


def _decoding(request: RecommendRequest, segment: Segment, *, explored: bool) -> Decoding:
    """The decoding that the request asks for, or that of its segment; items that are named are ranked, best first."""
    if request.candidates is not None:
        return _GREEDY
    if request.decoding is not None:
        return request.decoding.build()
    return segment.explore.decoding.build() if segment.explore and explored else segment.decoding.build()


def _is_ordered(segment: Segment, decoding: Decoding, *, explored: bool) -> bool:
    """Whether the list may be put into order. A drawn one keeps its order, from which the next order is learned.

    That is, unless the segment says otherwise; lists that explore always keep it.
    """
    return (not decoding.sampled and segment.order != "off") or (segment.order == "all" and not explored)


def _excluded(request: RecommendRequest, profile: Profile, exclude_seen: bool) -> npt.NDArray[np.int64]:
    """[m] Indices of items that must not be listed, unique and ascending."""
    model = profile.model
    if not exclude_seen:
        return np.unique(model.indices(request.exclude))
    more = [*request.exclude, *(event.item_id for event in request.events)]
    return np.union1d(profile.seen, model.indices(more)) if more else profile.seen
