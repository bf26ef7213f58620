"""The pages of a list. The first answer seals what is left of it into a cursor, and each page takes the next items.

Nothing is ranked anew: a page has the next items of the first list, less those that may not be listed any more. So no
item comes twice, and none is left out but what was forbidden.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from service.catalogue.item_view import ranked_items
from service.common.answer_warnings import Warnings
from service.common.deadline import Clock, Deadline
from service.common.errors import StoreUnavailable
from service.common.request_context import RequestContext
from service.common.request_errors import CursorGone
from service.engine.fallback import RecommendationList
from service.experiments.arms import Arms
from service.exposures.exposure import subject_name
from service.exposures.recorder import Recorder
from service.guard.guard import Reason
from service.history.profile import Profile
from service.history.pseudonyms import Pseudonyms
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.recommend.list_warnings import filter_warnings
from service.recommend.made import Made
from service.recommend.page_token import TAIL_MAX, CursorRefused, PageToken, opened
from service.recommend.request_plan import HISTORY_NOT_READ, Plan
from service.recommend.shown_list import about_of, page_entry
from service.schemas.recommend_request import RecommendRequest
from service.store.page_marks import PageMarks, PageState
from service.store.records import Subject

NO_CURSOR = "the list cannot be continued, because Redis is away: there is no cursor"
TOO_LONG = "the list cannot be continued, because its cursor would be too long: there is none"

ReadHistory = Callable[[Subject | None, ServedModel, Deadline], Awaitable[tuple[Profile, Reason | None]]]


@dataclass(frozen=True, slots=True)
class Page:
    """The items of one page, and how many of the tail were looked at for it."""

    items: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    taken: int


class Pages:
    """Makes and follows cursors."""

    def __init__(
        self,
        marks: PageMarks,
        arms: Arms,
        ids: Pseudonyms,
        recorder: Recorder,
        metrics: Metrics,
        *,
        ttl_s: float,
        wall_clock: Clock = time.time,
    ) -> None:
        """Connects the parts.

        Args:
            marks: Key and erasures.
            arms: Says which model a subject has.
            ids: Pseudonyms of users and sessions.
            recorder: Records each page.
            metrics: Counts them.
            ttl_s: How long a cursor can be used.
            wall_clock: Epoch seconds.
        """
        self._marks, self._arms, self._ids = marks, arms, ids
        self._recorder, self._metrics = recorder, metrics
        self._ttl_ms, self._wall_clock = int(ttl_s * 1000.0), wall_clock

    async def state(self, subject: Subject | None, deadline: Deadline) -> PageState | None:
        """Returns what a cursor needs, None if Redis is away. Call it before the history is read."""
        try:
            return await self._marks.read(subject_name(subject), within_s=deadline.remaining())
        except StoreUnavailable:
            self._metrics.redis_errors.labels("pages").inc()
            return None

    def begin(self, plan: Plan, deep: RecommendationList, made: Made, state: PageState | None) -> dict[str, Any]:
        """Returns the member `cursor` of a first page, and why there is none.

        Args:
            plan: The request.
            deep: The list, longer than the page.
            made: The page.
            state: What the cursor is made with; None if Redis is away.
        """
        if state is None:
            return {"cursor": None, "warnings": [NO_CURSOR]}
        first, ids = len(made.listing.items), plan.model.catalogue.item_ids
        rest = slice(first, first + TAIL_MAX)
        laws, drawn = law_of_tail(deep, first)
        if plan.ruling is not None and made.strategy is not None and plan.decoding.sampled:
            laws, drawn = None, len(deep.items) - first  # it is what rules have left of a draw
        token = PageToken(
            subject="" if plan.subject is None else plan.subject.tag,
            erasure=state.erasure,
            expires_ms=plan.now_ms + self._ttl_ms,
            given=first,
            items=[ids[item] for item in deep.items[rest].tolist()],
            scores=np.ascontiguousarray(deep.scores[rest], np.float32).tolist(),
            log_propensities=laws,
            drawn=drawn,
            exclude_seen=plan.model.excludes_seen(plan.request.exclude_seen),
            about=about_of(plan, made),
        )
        return self._cursor(token, state)

    async def next(
        self, request: RecommendRequest, context: RequestContext, budget_ms: float, read: ReadHistory
    ) -> dict[str, Any]:
        """Returns the body of the answer with the next page.

        Args:
            request: The validated body, which has a cursor.
            context: When the request began and arrived; receives the facts for its log line.
            budget_ms: Time budget of the answer.
            read: Reads a history.

        Raises:
            CursorRefused: The cursor is not one of this service, or belongs to another user.
            CursorGone: It has expired, or its user was erased.
            StoreUnavailable: Redis cannot say whether the user was erased.
        """
        deadline = context.deadline(budget_ms)
        token, state = await self._checked(request)
        subject = Subject.of_tag(token.subject)
        placement = self._arms.place(subject, None)
        model = placement.model
        wanted = model.tested(model.filter(request.filter or {}))
        about_filter = Warnings()
        filter_warnings(about_filter, request, model)
        warnings = about_filter.texts
        seen = np.zeros(0, np.int64)
        if token.exclude_seen:
            profile, failure = await read(subject, model, deadline)
            seen = profile.seen
            warnings += [HISTORY_NOT_READ] if failure is not None else []
        excluded = np.union1d(seen, model.indices(request.exclude))
        page = next_items(token, model, excluded, wanted.allowed, request.k)
        return self._answer(request, context, budget_ms, token, state, model, page, subject, warnings)

    async def _checked(self, request: RecommendRequest) -> tuple[PageToken, PageState]:
        """The content of a cursor that may be used.

        The key is needed to read whose it is, and its mark to trust it: two calls, of which the first needs no mark. A
        page has no lower rung, so both may take as long as Redis may, whatever the budget is.
        """
        token = opened(request.cursor or "", (await self._marks.read("")).key)
        asked = self._ids.subject(request.user_id, request.session_id)
        if asked is not None and asked.tag != token.subject:
            raise CursorRefused("this cursor belongs to another user or session; ask anew without it")
        if token.expires_ms <= self._now_ms():
            raise CursorGone("the cursor has expired; ask anew without it")
        state = await self._marks.read(subject_name(Subject.of_tag(token.subject)))
        if state.erasure != token.erasure:
            raise CursorGone("the user of this cursor was erased; ask anew without it")
        return token, state

    def _answer(
        self,
        request: RecommendRequest,
        context: RequestContext,
        budget_ms: float,
        token: PageToken,
        state: PageState,
        model: ServedModel,
        page: Page,
        subject: Subject | None,
        warnings: list[str],
    ) -> dict[str, Any]:
        about, list_id = token.about, self._recorder.new_list_id()
        scores = np.array(token.scores, np.float32)[page.places]
        items = ranked_items(model.catalogue, page.items, scores, request.fields)
        for item in items:
            item["rank"] += token.given
        reason = about["reason"] or ("not_enough_items" if len(items) < request.k else None)
        answer: dict[str, Any] = {
            "request_id": context.request_id, "list_id": list_id, "user_id": request.user_id, "items": items,
            "source": about["source"], "scorers": about["scorers"], "rung": about["rung"],
            "degraded": about["rung"] != "full", "reason": reason, "warnings": warnings, "segment": about["segment"],
            "strategy": about["strategy"], "model_version": about["model_version"], "arms": about["arms"],
            "budget_ms": budget_ms, "latency_ms": round(context.elapsed_ms(), 3),
        }  # fmt: skip
        left = token.without_first(page.taken, len(items))
        now_ms = self._now_ms()
        more = self._cursor(replace(left, expires_ms=now_ms + self._ttl_ms), state)
        answer["cursor"] = more["cursor"]
        answer["warnings"] += more["warnings"]
        made = partial(page_entry, token, page.places, scores, answer, request.k, now_ms)
        self._recorder.shown(list_id, subject, made)
        self._count(answer, context, request.k)
        return answer

    def _cursor(self, token: PageToken, state: PageState) -> dict[str, Any]:
        cursor = token.sealed(state.key)
        return {"cursor": cursor, "warnings": [TOO_LONG] if cursor is None and len(token.items) else []}

    def _count(self, answer: Mapping[str, Any], context: RequestContext, k: int) -> None:
        labels = {name: answer[name] for name in ("source", "rung", "reason", "strategy", "segment")}
        self._metrics.recommendations.labels(**{name: value or "" for name, value in labels.items()}).inc()
        context.source = answer["source"]
        context.facts.update(labels, k=k, page=True)

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000.0)


def law_of_tail(deep: RecommendationList, first: int) -> tuple[list[float] | None, int]:
    """Returns the log-propensities of the drawn items behind a first page, and how many these are.

    Args:
        deep: The list.
        first: Items of the first page.
    """
    if deep.draw is None:
        return [], 0
    laws = deep.draw.log_propensities
    if laws is None:
        return None, max(0, len(deep.items) - first)
    tail = laws[first : first + TAIL_MAX].tolist()
    return tail, len(tail)


def next_items(token: PageToken, model: ServedModel, excluded: npt.NDArray[np.int64], allowed: Any, k: int) -> Page:
    """Returns the next items of a list that may still be listed, at most k.

    Args:
        token: What is left of the list.
        model: The catalogue as it is now.
        excluded: [m] items that must not be listed.
        allowed: Which items may be listed; None for all.
        k: Items of a page.
    """
    index = model.vocabulary.item_index
    places = np.array([at for at, one in enumerate(token.items) if one in index], np.int64)
    items = model.indices(token.items)
    kept = ~np.isin(items, excluded)
    if allowed is not None and len(items):
        kept &= allowed[items]
    items, places = items[kept], places[kept]
    # What is forbidden behind the last item of the page may be allowed again when its own page comes.
    taken = int(places[k - 1]) + 1 if len(places) >= k else len(token.items)
    return Page(items[:k], places[:k], taken)
