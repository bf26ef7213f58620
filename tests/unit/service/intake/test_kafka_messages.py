"""A message becomes its events and its dead letters, by the code of `POST /events`."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.common.request_errors import RequestError
from service.intake.messages import Parsed, parsed
from service.intake.records import Record
from service.schemas.parsing import parse
from service.schemas.user_requests import MAX_EVENTS, Event, EventsRequest

LATEST_MS = 1_800_000_000_000
LARGEST = 100_000


class Schema:
    """The parsing half of `Ingest`."""

    def parse(self, raw: bytes, latest_ms: int) -> EventsRequest:
        return parse(EventsRequest, raw, latest_ms=latest_ms)

    def parse_event(self, raw: bytes, latest_ms: int) -> Event:
        return parse(Event, raw, latest_ms=latest_ms)


def read(value: bytes | None, **more: Any) -> Parsed:
    record = Record("topic", 3, 14, b"key", value, 1_700_000_000_123, claim=1)
    return parsed(record, Schema(), LATEST_MS, LARGEST)


def click(**more: Any) -> dict[str, Any]:
    return {"user_id": "u", "item_id": "1", "type": "click", "timestamp": 1_700_000_000_000, **more}


_EVENTS = st.one_of(
    st.builds(click, item_id=st.text("ab1 \\\"é", min_size=1, max_size=4), value=st.none() | st.floats(-1e9, 1e9)),
    st.sampled_from(
        [click(item_id=""), click(timestamp=-1), click(timestamp=1e17), click(colour="red"), {}, 7, None, [click()],
         "events", click(user_id=None), click(timestamp=LATEST_MS + 1), click(value="1")]
    ),
)  # fmt: skip


def alone(event: Any) -> Event | None:
    """The slow reference: each event by itself."""
    try:
        return Schema().parse_event(orjson.dumps(event), LATEST_MS)
    except RequestError:
        return None


@given(st.lists(_EVENTS, min_size=1, max_size=12))
def test_the_good_events_of_a_batch_are_kept_in_order_and_each_bad_one_becomes_a_dead_letter(batch: list[Any]) -> None:
    found = read(orjson.dumps({"events": batch}))
    each = [alone(event) for event in batch]
    assert list(found.events) == [event for event in each if event is not None]
    bad = [place for place, event in enumerate(each) if event is None]
    assert [letter.place for letter in found.dead] == bad
    assert [orjson.loads(letter.value or b"") for letter in found.dead] == [batch[place] for place in bad]
    assert found.outcome == ("stored" if not bad else "split" if len(bad) < len(batch) else "dead")


@given(_EVENTS)
def test_a_message_may_be_one_event(event: Any) -> None:
    found = read(orjson.dumps(event))
    expected = alone(event)
    assert list(found.events) == ([] if expected is None else [expected])
    assert len(found.dead) == (expected is None)


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (None, "bad_request", "the message is empty"),
        (b"", "bad_request", "the message is empty"),
        (b"{", "bad_request", "not valid JSON"),
        (b"\xff\xfe", "bad_request", "UTF-8"),
        (b"[" * 5000, "bad_request", ""),
        (b"x" * (LARGEST + 1), "body_too_large", str(LARGEST)),
        (orjson.dumps([click()]), "invalid_request", ""),
        (orjson.dumps({"events": []}), "invalid_request", "events"),
        (orjson.dumps({"events": [click()], "more": 1}), "invalid_request", "more"),
        (orjson.dumps({"events": [click()] * (MAX_EVENTS + 1)}), "invalid_request", "events"),
        (orjson.dumps(click(events=[click()])), "invalid_request", ""),
        (b'{"user_id":"u"},{"user_id":"v"}', "bad_request", ""),
    ],
)
def test_a_message_that_is_no_event_at_all_is_one_dead_letter(value: bytes | None, reason: str, said: str) -> None:
    found = read(value)
    [letter] = found.dead
    assert (found.events, letter.place, letter.value, letter.error.reason) == ((), None, value, reason)
    headers = dict(letter.outgoing("dead").headers)
    assert said in headers["gpt4rec-detail"].decode()
    assert headers["gpt4rec-reason"] == reason.encode()


def test_an_escaped_name_is_a_batch_too_and_text_that_mentions_events_is_not() -> None:
    batch = orjson.dumps({"events": [click()]}).replace(b'"events"', b'"\\u0065vents"')
    assert len(read(batch).events) == 1
    assert len(read(orjson.dumps(click(query="events", item_id="events"))).events) == 1


def test_a_dead_letter_says_where_it_came_from() -> None:
    found = read(orjson.dumps({"events": [click(), click(item_id=None)]}))
    [letter] = found.dead
    sent = letter.outgoing("dead")
    assert (sent.topic, sent.key, sent.value) == ("dead", b"key", orjson.dumps(click(item_id=None)))
    headers = {name: value.decode() for name, value in sent.headers}
    assert headers | {"gpt4rec-detail": ""} == {
        "gpt4rec-reason": "invalid_request", "gpt4rec-detail": "", "gpt4rec-topic": "topic", "gpt4rec-partition": "3",
        "gpt4rec-offset": "14", "gpt4rec-timestamp-ms": "1700000000123", "gpt4rec-event": "1",
    }  # fmt: skip
    assert "item_id" in headers["gpt4rec-detail"]
    small = letter.outgoing("dead", without_value=True)
    assert small.value == b""
    assert dict(small.headers)["gpt4rec-offset"] == b"14"
