"""What the Python client decides without a network: the queue, retries, the local list."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from gpt4rec_client import (
    Event,
    Forbidden,
    InvalidRequest,
    Recommendation,
    TimedOut,
    TooManyRequests,
    Unavailable,
    Unreachable,
)
from gpt4rec_client.answers import recommendation
from gpt4rec_client.attempts import Attempts
from gpt4rec_client.errors import ClientError, Fault, problem
from gpt4rec_client.events import Outbox
from gpt4rec_client.fallback import Fallback
from gpt4rec_client.item_calls import LINES_BYTES_MAX, LINES_MAX, ItemLine, imports
from gpt4rec_client.questions import beside, recommend
from hypothesis import given
from hypothesis import strategies as st


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _problem(status: int, retry_after: str | None = None) -> ClientError:
    return problem(status, None, retry_after)


_ERRORS = st.sampled_from([Unreachable("x"), TimedOut("x"), _problem(503, "2"), _problem(429, "3"), _problem(401)])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.just(("accepted", None)),
        st.tuples(st.just("refused"), _ERRORS),
        st.tuples(st.just("invalid"), st.sets(st.integers(0, 3), min_size=1)),
        st.just(("too large", None)),
        st.tuples(st.just("time"), st.floats(0, 40)),
    ),
    max_size=40,
)


@given(_STEPS)
def test_every_event_is_accepted_once_in_order_or_handed_back(steps: list[tuple[str, object]]) -> None:
    clock, dropped, accepted, added = _Clock(), list[Event](), list[Event](), list[Event]()

    def on_drop(events: Sequence[Event], why: str) -> None:
        assert why
        dropped.extend(events)

    box = Outbox(most=6, batch=4, interval_s=1.0, on_drop=on_drop, clock=clock)
    for kind, value in steps:
        if kind == "add":
            for _ in range(value if isinstance(value, int) else 0):
                event = Event(type="view", item_id=str(len(added)), user_id="u")
                added.append(event)
                assert box.add(event) == (event not in dropped)
        elif kind == "time":
            clock.now += value if isinstance(value, float) else 0.0
        elif (due := box.due_in(now=True)) is not None:
            clock.now += due
            batch = box.take()
            assert 1 <= len(batch) <= 4
            assert box.due_in(now=True) is None, "two batches are on their way"
            if kind == "accepted":
                accepted.extend(batch)
                box.accepted()
            elif kind == "invalid":
                bad = tuple(Fault((), "bad", "bad", n) for n in value if n < len(batch))  # type: ignore[attr-defined]
                box.refused(InvalidRequest(422, "invalid_request", "", "", faults=bad))
            elif kind == "too large":
                box.refused(_problem(413))
            elif isinstance(value, ClientError):
                box.refused(value)
        assert len(box) <= 6
        assert len(added) == len(accepted) + len(dropped) + len(box)
    kept = len(box)
    assert box.abandon() == kept
    assert len(box) == 0
    assert sorted(map(id, accepted + dropped)) == sorted(map(id, added))
    assert [int(event.item_id or 0) for event in accepted] == sorted(int(event.item_id or 0) for event in accepted)


def test_a_batch_waits_for_others_then_for_as_long_as_the_service_asks() -> None:
    clock = _Clock()
    box = Outbox(most=9, batch=2, interval_s=5.0, on_drop=lambda *_: None, clock=clock)
    assert box.due_in() is None
    box.add(Event(type="view", item_id="1", user_id="u"))
    assert (box.due_in(), box.due_in(now=True)) == (5.0, 0.0)
    box.add(Event(type="view", item_id="2", user_id="erased"))
    assert box.due_in() == 0.0
    box.take()
    assert box.forget("erased")
    box.refused(_problem(429, "7"))
    assert (box.due_in(), box.due_in(now=True), len(box)) == (7.0, 7.0, 1)
    pauses = []
    for _ in range(9):
        clock.now += 100.0
        box.take()
        box.refused(Unreachable("nobody"))
        pauses.append(box.due_in() or 0.0)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0


def test_the_ids_of_events_are_their_own_and_a_subject_is_needed() -> None:
    one, two = (Event(type="view", item_id="1", user_id="u") for _ in range(2))
    assert one.event_id != two.event_id
    assert set(one.to_json()) == {"type", "item_id", "user_id", "timestamp", "event_id"}
    with pytest.raises(ValueError, match="session_id"):
        Event(type="view", item_id="1")
    with pytest.raises(ValueError, match="JSON"):
        Event(type="rating", item_id="1", user_id="u", value=float("nan"))
    with pytest.raises(ValueError, match="surrogates"):
        Event(type="search", query="\ud800", user_id="u")


def test_a_call_is_tried_again_while_there_is_time_and_never_when_it_is_wrong() -> None:
    clock = _Clock()
    attempts = Attempts(1.0, 2, clock=clock, chance=lambda: 1.0)
    assert [attempts.pause_s(Unreachable("x")), attempts.pause_s(_problem(503))] == [0.05, 0.1]
    with pytest.raises(Unreachable):
        attempts.pause_s(Unreachable("x"))
    assert Attempts(10.0, 1, clock=clock).pause_s(_problem(429, "3")) == 3.0
    with pytest.raises(TooManyRequests):
        Attempts(10.0, 1, clock=clock).pause_s(_problem(429, "30"))
    with pytest.raises(Forbidden):
        Attempts(10.0, 5, clock=clock).pause_s(_problem(403))
    assert isinstance(_problem(502), Unavailable)
    clock.now += 2.0
    with pytest.raises(TimedOut):
        attempts.remaining_s()


def test_the_service_is_never_given_more_time_than_the_call_has_left() -> None:
    call = recommend({"user_id": "u", "budget_ms": 80.0})
    assert b'"budget_ms":80.0' in (call.content(1.0) or b"")
    assert b'"budget_ms":50.0' in (call.content(0.05) or b"")
    assert beside("a/b?", "similar", 1, ()).path == "/items/a%2Fb%3F/similar"


def _answer(user_id: str | None, *items: str) -> Recommendation:
    ranked = [{"item_id": item, "rank": n, "score": -n} for n, item in enumerate(items, 1)]
    return recommendation({"user_id": user_id, "items": ranked, "source": "gpt4rec", "list_id": "L"})


def test_last_lists_are_bounded_and_belong_to_their_question_and_user() -> None:
    fallback, away = Fallback(None, kept=2), Unreachable("away")
    for user in ("a", "b", "c"):
        fallback.keep({"user_id": user, "scene": "home"}, _answer(user, user + "1", user + "2"))
    again = fallback.instead({"user_id": "c", "scene": "home", "k": 1, "exclude": ["c1"], "seed": 3}, away)
    assert (again.item_ids, again.items[0].rank, again.list_id, again.local) == (["c2"], 1, None, True)
    for gone in ({"user_id": "a", "scene": "home"}, {"user_id": "b", "scene": "cart"}, {"session_id": "c"}):
        with pytest.raises(Unreachable):
            fallback.instead(gone, away)
    fallback.forget(user_id="c")
    with pytest.raises(Unreachable):
        fallback.instead({"user_id": "c", "scene": "home"}, away)
    with pytest.raises(InvalidRequest):
        fallback.instead({"user_id": "b", "scene": "home"}, _problem(422))


def test_a_visitor_without_an_id_never_sees_the_list_of_another() -> None:
    fallback = Fallback(None, kept=9)
    fallback.keep({"events": [{"item_id": "secret"}]}, _answer(None, "x"))
    with pytest.raises(Unreachable):
        fallback.instead({"events": [{"item_id": "other"}]}, Unreachable("away"))
    assert fallback.instead({"events": [{"item_id": "secret"}]}, Unreachable("away")).item_ids == ["x"]


def test_a_function_may_choose_the_configured_list() -> None:
    fallback = Fallback(lambda body: ["x"] if body.get("scene") == "home" else [], kept=0)
    assert fallback.instead({"scene": "home"}, _problem(503)).reason == "unavailable"
    with pytest.raises(Unavailable):
        fallback.instead({"scene": "cart"}, _problem(503))


def test_an_import_is_sent_in_parts_of_bounded_size() -> None:
    lines: list[ItemLine] = [{"item_id": str(n), "text": "é" * (2000 if n < 300 else 1)} for n in range(2500)]
    parts = [call.lines or "" for call in imports(iter(lines))]
    assert max(len(part.encode()) for part in parts) <= LINES_BYTES_MAX
    assert max(part.count("\n") for part in parts) < LINES_MAX
    assert [json.loads(line) for part in parts for line in part.split("\n")] == lines
