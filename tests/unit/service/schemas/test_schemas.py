"""What a body may say: times, ids, and nothing that is silently converted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.common.request_errors import BadRequest, InvalidRequest
from service.schemas.parsing import parse
from service.schemas.playground_requests import WhyRequest
from service.schemas.recommend_request import RecommendRequest
from service.schemas.request_bodies import REQUEST_BODIES
from service.schemas.user_requests import EventsRequest

NOW_MS = 1_800_000_000_000


def one(**fields: Any) -> Any:
    event = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": 1_700_000_000, **fields}
    return parse(EventsRequest, json.dumps({"events": [event]}).encode(), latest_ms=NOW_MS).events[0]


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2026, 12, 31)),  # noqa: DTZ001 - the zone is drawn below
    st.integers(-14 * 60, 14 * 60),
)
def test_a_moment_is_the_same_however_it_is_written(naive: datetime, offset: int) -> None:
    moment = naive.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    seconds = round(moment.timestamp())
    iso = moment.isoformat()
    utc = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert {one(timestamp=t).timestamp for t in (iso, utc, seconds, float(seconds))} == {seconds * 1000}
    # Below 1e11 a number means seconds: milliseconds before March 1973 cannot be told from them.
    if seconds * 1000 >= 1e11:
        assert one(timestamp=seconds * 1000).timestamp == seconds * 1000


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("2026-01-01T12:00:00", "without a zone"),
        ("2026-01-01", "without a zone"),
        ("1700000000", "neither"),
        ("", "neither"),
        (None, "neither"),
        (True, "neither"),
        ([], "neither"),
        (0, "before 1970"),
        (-5.5, "before 1970"),
        (NOW_MS + 1, "future"),
        ("9999-12-31T23:59:59Z", "future"),
        (10**400, "neither"),
        ("1700000000", "without quotes"),
        (1_700_000_000_000_000, "looks like microseconds; send seconds or milliseconds"),
        (1.7e15, "looks like microseconds"),
        (1_700_000_000_000_000_000, "looks like nanoseconds; send seconds or milliseconds"),
        (-1_700_000_000_000_000, "looks like microseconds"),
    ],
)
def test_a_bad_timestamp_is_refused_with_a_reason(moment: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        one(timestamp=moment)
    assert message in caught.value.errors[0]["message"]


@pytest.mark.parametrize("body", [RecommendRequest, WhyRequest])
def test_every_body_with_events_names_the_unit_of_a_time(body: type[RecommendRequest | WhyRequest]) -> None:
    raw = json.dumps({"events": [{"item_id": "i", "timestamp": 1_700_000_000_000_000}]}).encode()
    with pytest.raises(InvalidRequest) as caught:
        parse(body, raw, latest_ms=NOW_MS)
    assert "looks like microseconds" in caught.value.errors[0]["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"4.0"', "true"])
def test_a_value_is_a_finite_number(value: str) -> None:
    body = f'{{"events": [{{"user_id":"u","item_id":"i","type":"t","timestamp":1,"value":{value}}}]}}'
    with pytest.raises((InvalidRequest, BadRequest)):
        parse(EventsRequest, body.encode(), latest_ms=NOW_MS)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b" \r\n", "the body is empty; send a JSON object"),
        (b'\xef\xbb\xbf{"user_id":"u","k":1}', "the body begins with a byte order mark; send UTF-8 without one"),
        ('{"user_id":"u"}'.encode("utf-16"), "the body is UTF-16 or UTF-32; send UTF-8"),
        (b"\x1f\x8b\x08\x00", "the body is compressed by gzip; send it uncompressed"),
        (b'{"user_id":"\xff"}', "the body is not UTF-8, from byte 12 on"),
        (b'{"user_id":"u4711",}', "the body is not valid JSON: trailing comma at line 1 column 20"),
        (b"user_id=u4711", "the body is not valid JSON: expected value at line 1 column 1"),
    ],
)
@pytest.mark.parametrize("body", REQUEST_BODIES)
def test_a_body_that_is_no_json_is_said_to_be_what_it_is(body: type[Any], raw: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(body, raw)
    assert str(caught.value) == said


@given(st.text(max_size=140))
def test_an_id_is_1_to_128_characters_without_control_characters(text: str) -> None:
    fits = 1 <= len(text) <= 128 and not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)
    body = json.dumps({"user_id": text}).encode()
    if fits:
        assert parse(RecommendRequest, body).user_id == text
    else:
        with pytest.raises((InvalidRequest, BadRequest)):
            parse(RecommendRequest, body)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    with pytest.raises((InvalidRequest, BadRequest)):
        parse(EventsRequest, body, latest_ms=NOW_MS)


def test_a_decoding_has_the_temperature_of_its_strategy() -> None:
    def temperature(**decoding: Any) -> float:
        body = json.dumps({"user_id": "u", "decoding": decoding}).encode()
        chosen = parse(RecommendRequest, body).decoding
        assert chosen is not None
        return chosen.build().temperature

    assert temperature(strategy="temperature") == 1.2
    assert temperature(strategy="top_p") == 1.0
    assert temperature(strategy="top_p", temperature=0.5) == 0.5
