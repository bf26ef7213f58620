"""Stored and inline events, merged into one history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.history.history import merge_events
from service.schemas.recommend_request import InlineEvent
from service.store.records import StoredEvent

T = 1_700_000_000_000


def stored(*items: str) -> list[StoredEvent]:
    return [StoredEvent(item, "view", T + n * 1000, f"e{n}", float(T + n * 1000)) for n, item in enumerate(items)]


def inline(item: str, time_ms: int | None = None) -> InlineEvent:
    return InlineEvent(item_id=item) if time_ms is None else InlineEvent(item_id=item, timestamp=time_ms)


def test_what_no_log_would_keep_is_no_history() -> None:
    shown = InlineEvent(item_id="d", type="impression", timestamp=T + 5000)
    assert merge_events(stored("a"), [shown], T + 9000) == merge_events(stored("a"), [], T + 9000)


def test_newer_inline_events_follow_the_stored_ones() -> None:
    events = merge_events(stored("a", "b"), [inline("d"), inline("c", T + 5000)], T + 9000)
    assert events.item_ids == ["a", "b", "c", "d"]
    assert (events.stored, events.inline, events.last_ms) == (2, True, T + 5000)


def test_an_inline_event_between_stored_ones_takes_its_place_and_no_state_fits() -> None:
    events = merge_events(stored("a", "b"), [inline("c", T + 500)], T + 9000)
    assert (events.item_ids, events.stored) == (["a", "c", "b"], 0)


def test_sessions_stay_with_their_events_and_those_of_a_request_have_none() -> None:
    log = [event._replace(session=mark) for event, mark in zip(stored("a", "b", "c"), ("5a", "", "5b"), strict=True)]
    assert merge_events(log, [], T).sessions == ("5a", "", "5b")
    assert merge_events(log, [inline("d", T + 9000)], T).sessions == ("5a", "", "5b", "")
    between = merge_events(log, [inline("d", T + 500)], T)
    assert list(zip(between.item_ids, between.sessions, strict=True)) == [
        ("a", "5a"),
        ("d", ""),
        ("b", ""),
        ("c", "5b"),
    ]
    assert merge_events(stored("a"), [inline("d")], T).sessions == ()


def test_an_inline_copy_of_a_stored_event_is_left_out() -> None:
    events = merge_events(stored("a", "b"), [inline("b", T + 1000), inline("a", T)], T + 9000)
    assert (events.item_ids, events.stored, events.inline) == (["a", "b"], 2, False)


@given(
    st.lists(st.integers(0, 120_000)),
    st.lists(st.none() | st.integers(0, 120_000), max_size=6),
    st.integers(0, 59_999),
    st.integers(0, 59_999),
)
def test_a_question_is_about_the_same_history_as_long_as_the_minute_lasts(
    before: list[int], given_inline: list[int | None], one_ms: int, other_ms: int
) -> None:
    minute = T - T % 60_000 + 180_000  # all dated events lie before it
    log = [StoredEvent(str(n), "view", T + t, f"e{n}", float(T + t)) for n, t in enumerate(sorted(before))]
    asked = [inline(f"i{n}", None if t is None else T + t) for n, t in enumerate(given_inline)]
    once = merge_events(log, asked, minute + one_ms)
    assert once == merge_events(log, asked, minute + other_ms)
    undated = [f"i{n}" for n, t in enumerate(given_inline) if t is None]
    assert once.item_ids[len(once) - len(undated) :] == undated, "what has no timestamp is the newest"


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_a_past_is_ordered_by_time(before: list[int], given_inline: list[int]) -> None:
    log = [StoredEvent(str(n), "view", T + t, f"e{n}", float(T + t)) for n, t in enumerate(sorted(before))]
    events = merge_events(log, [inline(f"i{n}", T + t) for n, t in enumerate(given_inline)], T)
    assert events.times_ms == sorted(events.times_ms)
    assert len(events) == len(before) + len(given_inline)
    assert events.item_ids[: events.stored] == [str(n) for n in range(events.stored)]
