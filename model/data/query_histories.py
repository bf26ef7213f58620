"""Histories for networks that read queries: the searches of a user stand among the events, where they happened.

Of one moment, a search comes before an event, because it leads to what is looked at. A question is asked at the moment
of its target, so it knows the searches up to then; a training position knows those before its target.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.dataset import NO_SCENE, Sequences
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays, Vocabulary, type_index
from service.artifact.query_text import NO_GRAM, QUERY_GRAMS, KnownQueries

SEARCH = type_index("search")


def history_events(log: Sequences, user: int, end: int, vocabulary: Vocabulary) -> EventArrays:
    """Returns a user's history as a network with this vocabulary reads it.

    Args:
        log: The whole log.
        user: Row of the user.
        end: Row of the log before which the history ends. The searches up to the time of that row, which is the
            target's, are in the history; all of them where the log ends there for this user.
        vocabulary: What the network knows.
    """
    rows = slice(int(log.offsets[user]), end)
    session = log.session[rows] if vocabulary.reads_sessions and log.session is not None else None
    events = EventArrays(log.item[rows], log.type[rows], log.time_ms[rows], session=session)
    if log.searches is None or not vocabulary.query_buckets or not log.has_time:
        return events
    asked_ms = int(log.time_ms[end]) if end < log.offsets[user + 1] else np.iinfo(np.int64).max
    return _merged(log, user, events, asked_ms, vocabulary.query_buckets, vocabulary.known_queries)


def with_searches(train: Sequences, log: Sequences, buckets: int, known: KnownQueries | None = None) -> Sequences:
    """Returns training sequences with the searches in them; their item is `n_items`, which is no target.

    Args:
        train: The training part, row for row the users of `log`.
        log: The whole log, with its searches.
        buckets: Buckets of the network; 0 for one that reads no queries.
        known: The queries that the network has vectors of; None if it has none.
    """
    if log.searches is None or not buckets or not log.has_time:
        return train
    parts, scenes = [], []
    for user in range(train.n_users):
        rows = train.user(user)
        events = EventArrays(train.item[rows], train.type[rows], train.time_ms[rows])
        last_ms = int(events.time_ms[-1]) if len(events) else -1
        parts.append(_merged(replace(train, searches=log.searches), user, events, last_ms, buckets, known))
        if train.scene is not None:
            scene = np.full(len(parts[-1]), NO_SCENE, np.int64)
            scene[parts[-1].item < train.n_items] = train.scene[rows]
            scenes.append(scene)
    lengths = np.array([len(part) for part in parts], np.int64)
    return replace(
        train,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        item=np.concatenate([part.item for part in parts]),
        type=np.concatenate([part.type for part in parts]),
        time_ms=np.concatenate([part.time_ms for part in parts]),
        scene=np.concatenate(scenes) if scenes else None,
        query=np.concatenate([_queries(part) for part in parts]),
        session=None,  # no network reads both
    )


def without_searches(events: EventArrays, unknown_item: int) -> EventArrays:
    """Returns the events of items: what signals and rules know of a history."""
    if events.query is None:
        return events
    search = (events.item == unknown_item) & (events.type == SEARCH) & (events.query != NO_GRAM).any(axis=1)
    return EventArrays(events.item[~search], events.type[~search], events.time_ms[~search])


def _merged(
    log: Sequences, user: int, events: EventArrays, until_ms: int, buckets: int, known: KnownQueries | None
) -> EventArrays:
    searches = log.searches
    assert searches is not None  # noqa: S101 - the callers check
    rows = searches.until(user, until_ms)
    n = rows.stop - rows.start
    if not n:
        return events
    time_ms = np.concatenate([searches.time_ms[rows], events.time_ms])
    order = np.argsort(time_ms, kind="stable")
    item = np.concatenate([np.full(n, log.n_items, np.int64), events.item])
    kind = np.concatenate([np.full(n, SEARCH, np.int64), events.type])
    query = np.concatenate([searches.grams(buckets, known)[rows], _queries(events)])
    return EventArrays(item[order], kind[order], time_ms[order], query[order])


def _queries(events: EventArrays) -> IntArray:
    return np.full((len(events), QUERY_GRAMS), NO_GRAM, np.int64) if events.query is None else events.query
