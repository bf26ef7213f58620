"""The version chain: what it accepts as a base, and what it must refuse."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from service.store import log_version
from service.store.records import SEPARATOR, NewEvent, StoredEvent, Subject, UserRecord, parse_events


def event(n: int, time_ms: int | None = None, arrival: int = 0) -> StoredEvent:
    time_ms = n * 10 if time_ms is None else time_ms
    return StoredEvent(f"i{n}", "click", time_ms, f"e{n}", time_ms + arrival / 1024)


def record(*events: StoredEvent, arrived: list[StoredEvent] | None = None) -> UserRecord:
    """A log as it stands, whose version comes from the order of arrival."""
    return UserRecord(log_version.chain("", arrived or events), tuple(sorted(events, key=lambda e: e.score)))


@given(st.integers(1, 30), st.data())
def test_a_state_made_at_any_prefix_is_a_base_for_the_rest(n: int, data: st.DataObject) -> None:
    events = [event(i) for i in range(n)]
    at = data.draw(st.integers(1, n))
    version = log_version.chain("", events[:at])
    assert log_version.tail(record(*events), version, events[at - 1].score) == tuple(events[at:])


def test_an_up_to_date_state_has_an_empty_tail() -> None:
    log = record(event(1), event(2))
    assert log_version.tail(log, log.version, event(2).score) == ()


def test_a_late_event_makes_older_states_invalid() -> None:
    before = [event(1), event(3)]
    version = log_version.chain("", before)
    late = record(*before, event(2), arrived=[*before, event(2)])
    assert log_version.tail(late, version, before[-1].score) is None


def test_events_that_arrived_out_of_order_after_the_state_make_it_invalid() -> None:
    base = event(1)
    version = log_version.chain("", [base])
    log = record(base, event(2), event(3), arrived=[base, event(3), event(2)])
    assert log_version.tail(log, version, base.score) is None


def test_trimming_old_events_keeps_a_base_valid() -> None:
    events = [event(i) for i in range(6)]
    trimmed = UserRecord(log_version.chain("", events), tuple(events[3:]))
    assert log_version.tail(trimmed, log_version.chain("", events[:4]), events[3].score) == tuple(events[4:])
    assert log_version.tail(trimmed, log_version.chain("", events[:3]), events[2].score) == tuple(events[3:])


def test_a_base_whose_next_events_were_trimmed_is_refused() -> None:
    events = [event(i) for i in range(6)]
    trimmed = UserRecord(log_version.chain("", events), tuple(events[4:]))
    assert log_version.tail(trimmed, log_version.chain("", events[:2]), events[1].score) is None


def test_a_log_that_was_erased_and_grew_again_refuses_the_old_state() -> None:
    old = log_version.chain("", [event(1), event(2)])
    assert log_version.tail(record(event(3)), old, event(2).score) is None


def test_the_arrival_order_of_one_millisecond_is_part_of_the_chain() -> None:
    assert log_version.link("", event(1, 5, arrival=0)) != log_version.link("", event(1, 5, arrival=1))


def test_the_chain_of_known_events_never_changes() -> None:
    # Written down, because stored states of a running deployment depend on it.
    assert log_version.chain("", [event(1), event(2, 20, arrival=3)]) == "4c898f94f6a39617"


@given(st.sampled_from(["", "tea"]), st.sampled_from(["", "0badcafe"]))
def test_a_member_has_as_many_fields_as_it_needs_and_the_chain_has_them_all(query: str, session: str) -> None:
    new = NewEvent("i1", "click", 10, "e1", kept_query=query, session=session)
    member = new.member(Subject("user", "u"))
    assert len(member.split(SEPARATOR)) == (5 if session else 4 if query else 3)
    [stored] = parse_events([member.encode(), b"10"])
    assert (stored.query, stored.session) == (query, session)
    text = SEPARATOR.join(("", "10", "0", member))  # as the script of the store makes it
    assert log_version.link("", stored) == hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]


def test_events_without_an_id_are_told_apart_by_user_item_type_and_time() -> None:
    user = Subject("user", "u")
    one = NewEvent("i", "click", 5)
    assert one.identity(user) == NewEvent("i", "click", 5).identity(user)
    others = [NewEvent("j", "click", 5), NewEvent("i", "view", 5), NewEvent("i", "click", 6)]
    ids = {one.identity(user), one.identity(Subject("session", "u")), *(e.identity(user) for e in others)}
    assert len(ids) == 5


@given(st.text(min_size=1, max_size=20))
def test_a_user_id_stays_inside_its_hash_tag(user_id: str) -> None:
    tag = Subject("user", user_id.encode("utf-8", "replace").decode()).tag
    assert tag[0] == "{" and tag[-1] == "}" and not set(tag[1:-1]) & set("{}\r\n ")
