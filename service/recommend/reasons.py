"""Why the items of a list are in it: computed only for requests that ask, on a thread of its own.

The reasons must not delay an answer beyond its deadline, so they are waited for as long as the deadline allows, and a
bounded number of requests may wait. A list that cannot be explained in time comes without reasons, and says so.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.artifact.scorers.ranker_weights import DENSE, PATH
from service.artifact.scorers.repeat_purchase import REPEAT, Repeat
from service.artifact.scorers.signal_files import POPULARITY
from service.common import logs
from service.common.errors import ModelError
from service.engine.candidates import Candidates
from service.engine.fallback import RecommendationList
from service.engine.fused_scorer import FusedScorer
from service.engine.interface import Explaining, Repeating
from service.history.profile import pending_encoding
from service.recommend.memory_reason import DIGITS, memory_reason
from service.recommend.request_plan import Plan, Why
from service.signals.contributions import Contributions, MainEvent, contributions, main_events, weighted_values
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

log = logs.get(__name__)

TOO_LATE = "the time left did not suffice to explain the list"
UNEXPLAINED = "this list cannot be explained"

_NETWORK = frozenset({PATH, DENSE})
_WAITING_MAX = 16  # lists that may wait for their reasons, in all
_ANSWER_S = 0.002  # kept for writing the answer
_LEAST_S = 0.002  # with less time left nothing is tried

Because = list[dict[str, Any]]


class Reasons:
    """Explains lists.

    Attributes:
        explained: Lists for which the work has begun, since the start.
    """

    def __init__(self, history_cap: int) -> None:
        self._history_cap = history_cap
        self.explained = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reasons")
        self._places = threading.BoundedSemaphore(_WAITING_MAX)

    def close(self) -> None:
        """Cancels what waits and ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def of(self, plan: Plan, listing: RecommendationList) -> Why:
        """Explains a list.

        Args:
            plan: The request.
            listing: Its list; one of the model has its candidates.
        """
        if not len(listing.items):
            return Why()
        deadline = plan.deadline.keeping(_ANSWER_S)
        if deadline.remaining() < _LEAST_S or not self._places.acquire(blocking=False):
            return Why(warnings=(TOO_LATE,))
        self.explained += 1
        try:
            work = self._thread.submit(_explained, plan, listing, self._history_cap)
            work.add_done_callback(self._leave)
            because = await asyncio.wait_for(asyncio.wrap_future(work), deadline.remaining())
        except TimeoutError:
            return Why(warnings=(TOO_LATE,))
        except Exception as error:
            log.error("reasons_failed", request_id=plan.context.request_id, **logs.where(error))
            return Why(warnings=(UNEXPLAINED,))
        return Why(warnings=(UNEXPLAINED,)) if because is None else Why(because)

    def _leave(self, _: Future[Because | None]) -> None:
        self._places.release()


@dataclass(frozen=True, slots=True)
class _Attended:
    """The event of the history with the largest share of the network's attention.

    `memory` is what the network read from its memory, of encoders that have one to show.
    """

    place: int
    share: float
    by: Literal["attention", "gradient"]
    memory: dict[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """What ranked a list.

    Attributes:
        found: What each signal contributed to each item.
        main: The event of each item that carried most of it through the signals of the user.
        beside: The signals of the user.
    """

    found: Contributions
    main: Sequence[MainEvent | None]
    beside: frozenset[str]


def _explained(plan: Plan, listing: RecommendationList, history_cap: int) -> Because | None:
    """`because` of each item; None if nothing is known of what made the list."""
    if listing.scorers == (POPULARITY,):
        return _popular(plan, listing)
    history = plan.user_history()
    ranked = _ranked(plan, listing, history)
    if ranked is None:
        return None
    found = ranked.found
    network, beside = found.of(_NETWORK), found.of(ranked.beside)
    by_network = [at for at in range(len(network)) if network[at] > max(beside[at], 0.0)]
    attended = _attended(plan, history_cap) if by_network and _NETWORK & set(found.names) else None
    because = []
    for at, event in enumerate(ranked.main):
        memory = None
        if not found.candidate[at]:
            shown = None
        elif at in by_network and attended is not None:
            shown, memory = _attended_event(plan, attended), attended.memory
        else:
            shown = None if event is None else _event(plan, history, event)
        read = {} if memory is None else {"memory": memory}
        because.append({"contributions": _named(found, at), "event": shown, **read})
    return because


def _ranked(plan: Plan, listing: RecommendationList, history: UserHistory) -> _Ranked | None:
    engine = plan.model.engine
    if listing.source == "gpt4rec" and listing.candidates is not None:
        return _by_model(plan, listing.items, listing.candidates, history)
    if listing.source == "repeat" and isinstance(engine, Repeating):
        return _by_repeats(plan, listing.items, engine.repeat, history)
    if listing.source in ("item_cf", "popular"):
        return _by_signals(plan, listing, history)
    return None


def _by_model(plan: Plan, items: IntArray, chosen: Candidates, history: UserHistory) -> _Ranked:
    ranker, group = plan.model.ranker, plan.group()
    path, dense = ranker.network(group)
    weighted: dict[str, Float64Array] = {}
    for name, weight, values in ((PATH, path, chosen.log_probs), (DENSE, dense, chosen.dense)):
        if weight:
            weighted[name] = weight * values.astype(np.float64)
    weighted |= weighted_values(ranker, history, chosen.items, group, chosen.counted)
    main = main_events(ranker, history, items, group)
    left_out = set(chosen.items[~chosen.counted].tolist())
    main = [None if item in left_out else event for item, event in zip(items.tolist(), main, strict=True)]
    return _Ranked(contributions(weighted, chosen.items, items), main, _of_user(ranker))


def _by_signals(plan: Plan, listing: RecommendationList, history: UserHistory) -> _Ranked:
    ranker, items = plan.model.ranker, listing.items
    if ranker.used() != listing.scorers:  # not the artefact's own scorer
        ranker = ranker.without_network()
    scorer = FusedScorer(ranker, plan.model.fallback.popularity)
    among = scorer.candidates(ranker.user(history), plan.pool, plan.limits.allowed, plan.limits.excluded)
    found = contributions(weighted_values(ranker, history, among), among, items)
    return _Ranked(found, main_events(ranker, history, items), _of_user(ranker))


def _by_repeats(plan: Plan, items: IntArray, repeat: Repeat, history: UserHistory) -> _Ranked:
    """The user's own items are the candidates; of the events of an item, the newest weighs most."""
    among, scores = repeat.recommend(history.items, len(history), plan.limits.allowed, plan.limits.excluded)
    found = contributions({REPEAT: scores.astype(np.float64)}, among, items)
    main = [_newest(shares) for shares in repeat.shares(history.items, items)]
    return _Ranked(found, main, frozenset({REPEAT}))


def _newest(shares: Float64Array) -> MainEvent | None:
    own = np.flatnonzero(shares)
    return MainEvent(int(own[-1]), True, REPEAT, float(shares[own[-1]] / shares.sum())) if len(own) else None


def _of_user(ranker: Ranker) -> frozenset[str]:
    return frozenset(signal.name for signal in ranker.user_signals)


def _popular(plan: Plan, listing: RecommendationList) -> Because:
    """The share of each item, less the mean share of the catalogue."""
    mean = 1 / max(1, plan.model.fallback.popularity.n_items)
    return [
        {"contributions": {POPULARITY: round(share - mean, DIGITS)}, "event": None} for share in listing.scores.tolist()
    ]


def _attended(plan: Plan, history_cap: int) -> _Attended | None:
    """The event that the encoder attended to most; None if the artefact cannot say."""
    engine = plan.model.engine
    if not isinstance(engine, Explaining) or not engine.explains:
        return None
    pending = pending_encoding(plan.profile, plan.history, history_cap=history_cap, from_state=False)
    if pending is None or not len(pending.events):
        return None
    try:
        explained = engine.explain(pending.events, from_start=pending.from_start, context=pending.user)
    except ModelError as error:
        log.warning("attention_failed", request_id=plan.context.request_id, **logs.where(error))
        return None
    weight, memory = explained.weight, None
    if explained.memory is not None:
        memory = memory_reason(explained.memory, pending.places, plan.history.times_ms, partial(_of_log, plan))
    places = pending.places[len(pending.places) - len(weight) :]
    of_items = places >= 0  # a search has no item that could be named
    if not of_items.any():
        return None
    best = int(np.where(of_items, weight, -1.0).argmax())
    by: Literal["attention", "gradient"] = "gradient" if explained.method == "gradient" else "attention"
    return _Attended(int(places[best]), float(weight[best]), by, memory)


def _named(found: Contributions, at: int) -> dict[str, float]:
    if not found.candidate[at]:
        return {}
    return {name: round(value, DIGITS) for name, value in zip(found.names, found.values[at].tolist(), strict=True)}


def _attended_event(plan: Plan, attended: _Attended) -> dict[str, Any]:
    shown = _of_log(plan, attended.place)
    return {**shown, "share": round(attended.share, DIGITS), "exact": False, "by": attended.by}


def _event(plan: Plan, history: UserHistory, event: MainEvent) -> dict[str, Any]:
    if event.in_log:
        shown = _of_log(plan, len(plan.history) - len(history) + event.place)
    else:
        item = int(history.before.items[event.place])
        shown = _shown(plan, plan.model.catalogue.item_ids[item], int(history.before.last_ms[event.place]))
    return {**shown, "share": round(event.share, DIGITS), "exact": True, "by": event.signal}


def _of_log(plan: Plan, place: int) -> dict[str, Any]:
    return _shown(plan, plan.history.item_ids[place], plan.history.times_ms[place])


def _shown(plan: Plan, item_id: str, time_ms: int) -> dict[str, Any]:
    item = plan.model.vocabulary.item_index.get(item_id)
    title = None if item is None else plan.model.catalogue.title(item)
    return {"item_id": item_id, "title": title, "timestamp_ms": time_ms}
