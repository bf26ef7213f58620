"""The join of lists and events in plain loops: the reference for `model.online.attribution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlainOutcome:
    """What became of one event: its place among the events, the list that it belongs to, and how it came to it."""

    event: int
    list_id: str | None
    position: int | None
    mark: str


def attribute_plainly(
    exposures: Sequence[Row], events: Sequence[Row], merges: Sequence[Row], erased: Sequence[Row], window_ms: int
) -> tuple[list[str], list[PlainOutcome]]:
    """Joins exposures and events, one event at a time.

    Args:
        exposures: Rows of exposures.
        events: Rows of events.
        merges: Rows of merges.
        erased: Rows of erasures.
        window_ms: How much older than an event that names neither list nor request its list may be.

    Returns:
        The ids of the lists that remain, and the outcome of each event that remains, in the order of reception.
    """
    lists: dict[str, Row] = {}
    for one in exposures:
        if not _is_erased(one["subject"], one["time_ms"], merges, erased) and one["list_id"] not in lists:
            lists[one["list_id"]] = one
    by_viewer: dict[str, list[Row]] = {}
    for one in lists.values():
        for viewer in {one["subject"], _owner(one["subject"], one["time_ms"], merges)[0]}:
            by_viewer.setdefault(viewer, []).append(one)
    outcomes, seen = [], set()
    for place, event in sorted(enumerate(events), key=lambda pair: pair[1]["received_ms"]):
        if _is_erased(event["subject"], event["received_ms"], merges, erased):
            continue
        identity = _identity(event, merges)
        if identity in seen:
            continue
        seen.add(identity)
        outcomes.append(_outcome(place, event, by_viewer.get(event["subject"], []), merges, window_ms))
    return list(lists), outcomes


def _outcome(place: int, event: Row, lists: Sequence[Row], merges: Sequence[Row], window_ms: int) -> PlainOutcome:
    whole = event["type"] == "impression" and event["item_id"] is None
    best: tuple[int, str, int | None] | None = None
    mark = "named" if event["list_id"] else "by_request" if event["request_id"] else "inferred"
    for one in lists:
        if one["time_ms"] > event["time_ms"]:
            continue
        if not _may_see(event, one, merges):
            continue
        if not whole and event["item_id"] not in one["items"]:
            continue
        if mark == "named" and one["list_id"] != event["list_id"]:
            continue
        if mark == "by_request" and one["request_id"] != event["request_id"]:
            continue
        if mark == "inferred" and (whole or one["time_ms"] < event["time_ms"] - window_ms):
            continue
        position = None if whole else one["items"].index(event["item_id"]) + 1
        found = (one["time_ms"], one["list_id"], position)
        if best is None or found[:2] > best[:2]:
            best = found
    if best is None:
        return PlainOutcome(place, None, None, "unmatched")
    return PlainOutcome(place, best[1], best[2], mark)


def _may_see(event: Row, one: Row, merges: Sequence[Row]) -> bool:
    if event["subject"] == one["subject"]:
        return True
    owner, merged_ms = _owner(one["subject"], one["time_ms"], merges)
    return owner == event["subject"] and merged_ms is not None and merged_ms <= event["received_ms"]


def _owner(subject: str, time_ms: int, merges: Sequence[Row]) -> tuple[str, int | None]:
    """The user that a session's row belongs to in the end, and since when."""
    later = [one for one in merges if one["subject"] == subject and one["merged_ms"] >= time_ms]
    if not later:
        return subject, None
    first = min(later, key=lambda one: one["merged_ms"])
    return first["into"], first["merged_ms"]


def _is_erased(subject: str, time_ms: int, merges: Sequence[Row], erased: Sequence[Row]) -> bool:
    owner, merged_ms = _owner(subject, time_ms, merges)
    for one in erased:
        if one["subject"] == subject and one["erased_ms"] >= time_ms:
            return True
        if merged_ms is not None and one["subject"] == owner and one["erased_ms"] >= merged_ms:
            return True
    return False


def _identity(event: Row, merges: Sequence[Row]) -> tuple[Any, ...]:
    if event["event_id"]:
        owner, _ = _owner(event["subject"], event["received_ms"], merges)
        return ("id", owner, event["event_id"])
    return ("fields", event["subject"], event["item_id"], event["type"], event["time_ms"], event["query"])
