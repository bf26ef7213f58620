"""Random logs with all that makes a join hard: duplicates, late events, merges, erasures, reused ids, wrong names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray

Row = dict[str, Any]

_MINUTE_MS = 60_000
_TYPES = ("click", "click", "click", "view", "cart", "purchase", "impression", "impression", "search")
_ITEM_OF_NO_LIST = "nowhere"


@dataclass(frozen=True, slots=True)
class RandomLog:
    """Rows of each kind, as `model.online.log_schema.frame_of` takes them."""

    exposures: list[Row]
    events: list[Row]
    merges: list[Row]
    erased: list[Row]


def random_log(
    seed: int, *, events: int, subjects: int, items: int = 12, hours: float = 6.0, start_ms: int = 0, k: int = 4
) -> RandomLog:
    """Returns a random log.

    Args:
        seed: Seed of everything.
        events: Number of events, duplicates included.
        subjects: Number of users and sessions together.
        items: Size of the catalogue; a small one makes lists of one subject share items.
        hours: How long the log lasts.
        start_ms: Time of its beginning.
        k: Length of the lists.
    """
    rng = np.random.default_rng(seed)
    span = int(hours * 60 * _MINUTE_MS)
    users = [f"u:{i}" for i in range((subjects + 1) // 2)]
    sessions = [f"s:{i}" for i in range(subjects // 2)]
    everybody = users + sessions
    exposures = [_exposure(rng, n, everybody, items, k, start_ms, span) for n in range(max(1, events // 3))]
    merges = [
        {"subject": session, "into": users[rng.integers(len(users))], "merged_ms": start_ms + int(rng.integers(span))}
        for session in sessions
        for _ in range(rng.integers(3))
    ]
    erased = [
        {"subject": one, "erased_ms": start_ms + int(rng.integers(span))} for one in everybody if rng.random() < 0.1
    ]
    rows = list(_events(rng, events, exposures, merges, everybody, items, start_ms, span))
    again = [dict(exposures[i]) for i in rng.integers(len(exposures), size=len(exposures) // 20)]
    return RandomLog(exposures + again, rows, merges, erased)


def _exposure(
    rng: np.random.Generator, n: int, subjects: list[str], items: int, k: int, start_ms: int, span: int
) -> Row:
    # Coarse times make ties.
    time_ms = start_ms + int(rng.integers(span // 1000)) * 1000
    return {
        "list_id": f"L{n:08d}",
        "request_id": f"r{n // 2 if rng.random() < 0.1 else n}",
        "subject": subjects[rng.integers(len(subjects))],
        "time_ms": time_ms,
        "items": _shown(rng, items, k),
    }


def _shown(rng: np.random.Generator, items: int, k: int) -> list[str]:
    chosen: IntArray = rng.choice(items, size=min(k, items), replace=False)
    return [str(item) for item in chosen.tolist()]


def _events(
    rng: np.random.Generator,
    n: int,
    exposures: list[Row],
    merges: list[Row],
    subjects: list[str],
    items: int,
    start_ms: int,
    span: int,
) -> Iterator[Row]:
    into = {one["subject"]: one["into"] for one in merges}
    made: list[Row] = []
    for number in range(n):
        if made and rng.random() < 0.1:
            again = dict(made[rng.integers(len(made))])
            again["received_ms"] += int(rng.integers(5)) * _MINUTE_MS
            if rng.random() < 0.3 and again["subject"] in into:
                again["subject"] = into[again["subject"]]
            event = again
        elif rng.random() < 0.8:
            event = _of_list(rng, number, exposures[rng.integers(len(exposures))], into, items)
        else:
            event = _stray(rng, number, subjects, items, start_ms + int(rng.integers(span)))
        made.append(event)
        yield event


def _of_list(rng: np.random.Generator, number: int, shown: Row, into: dict[str, str], items: int) -> Row:
    subject = shown["subject"]
    if subject in into and rng.random() < 0.4:
        subject = into[subject]
    item = shown["items"][rng.integers(len(shown["items"]))] if rng.random() < 0.9 else str(rng.integers(items))
    # Some lie before their list.
    time_ms = shown["time_ms"] + int(rng.integers(-5, 60)) * _MINUTE_MS // 2
    event = _event(rng, number, subject, item, max(0, time_ms))
    naming = rng.random()
    if naming < 0.4:
        event["list_id"] = shown["list_id"]
    elif naming < 0.7:
        event["request_id"] = shown["request_id"]
    if event["type"] == "impression" and rng.random() < 0.5:
        event["item_id"] = None
    return event


def _stray(rng: np.random.Generator, number: int, subjects: list[str], items: int, time_ms: int) -> Row:
    event = _event(rng, number, subjects[rng.integers(len(subjects))], str(rng.integers(items)), time_ms)
    if rng.random() < 0.2:
        event["item_id"] = _ITEM_OF_NO_LIST
    if rng.random() < 0.2:
        event["list_id"] = f"L{rng.integers(10**6):08d}"
    if event["type"] == "search":
        event["item_id"], event["query"] = None, "boots"
    return event


def _event(rng: np.random.Generator, number: int, subject: str, item: str, time_ms: int) -> Row:
    late_ms = int(rng.integers(120)) * _MINUTE_MS if rng.random() < 0.2 else int(rng.integers(3000))
    return {
        "subject": subject,
        "item_id": item,
        "type": _TYPES[rng.integers(len(_TYPES))],
        "time_ms": time_ms,
        "event_id": f"e{number}" if rng.random() < 0.5 else None,
        "value": float(rng.integers(100)) if rng.random() < 0.3 else None,
        "query": None,
        "request_id": None,
        "list_id": None,
        "received_ms": time_ms + late_ms,
    }
