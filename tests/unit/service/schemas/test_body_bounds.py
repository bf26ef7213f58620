"""No body makes the service build more than a valid one would: neither values, nor faults, nor the answer's bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from service.api.problems import problem
from service.common.request_errors import BadRequest, InvalidRequest, RequestError
from service.schemas import parsing
from service.schemas.body_bounds import ELEMENTS_MAX, FAULTS_MAX, check_nodes, listed, most_nodes
from service.schemas.parsing import parse
from service.schemas.recommend_request import RecommendRequest
from service.schemas.request_bodies import REQUEST_BODIES
from service.schemas.user_requests import MAX_EVENTS, EventsRequest

SIZE = 500_000
ANSWER_MAX = 600_000
LISTED_MAX = FAULTS_MAX + ELEMENTS_MAX + 1


def repeated(before: str, one: str, after: str, size: int) -> bytes:
    return (before + ",".join([one] * (size // (len(one) + 1))) + after).encode()


def hostile(body: type[BaseModel], size: int) -> Iterator[bytes]:
    """Bodies of about `size` bytes: members and elements of every kind, wherever this model has room for some."""
    yield repeated("{", '"k":[]', "}", size)
    yield repeated("{", '"k":{}', "}", size)
    yield ("{" + ",".join(f'"k{n}":0' for n in range(size // 12)) + "}").encode()
    yield repeated("[", "0", "]", size)
    yield b"[" * size
    yield b'{"a":' * (size // 5)
    yield ('{"' + "n" * size + '":0}').encode()
    yield ('{"' + '\\"' * (size // 2) + '":0}').encode()
    for field in body.model_fields:
        yield repeated(f'{{"{field}":[', "{}", "]}", size)
        yield repeated(f'{{"{field}":[', "[]", "]}", size)
        yield repeated(f'{{"{field}":{{', '"k":[]', "}}", size)
        yield repeated(f'{{"{field}":{{"a":[', "1", "]}}", size)
        yield repeated(f'{{"{field}":[{{', '"x":0', "}]}", size)
        unknown = "{" + ",".join(f'"x{n}":0' for n in range(9)) + "}"
        yield repeated(f'{{"{field}":[', unknown, "]}", min(size, 1000 * len(unknown)))
        yield json.dumps({field: "x" * size}).encode()
        yield f'{{"{field}":{"9" * size}}}'.encode()


@pytest.mark.parametrize("size", [SIZE, 10_000])
@pytest.mark.parametrize("body", REQUEST_BODIES)
def test_what_is_built_of_a_body_is_bounded_whatever_it_holds(
    body: type[BaseModel], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def noted(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        built.append(len(faults))
        return listed(faults)

    monkeypatch.setattr(parsing, "listed", noted)
    for raw in hostile(body, size):
        with pytest.raises(RequestError) as caught:
            parse(body, raw, latest_ms=0)
        assert len(caught.value.errors or ()) <= LISTED_MAX, raw[:60]
        assert len(problem(caught.value, "id").body) <= ANSWER_MAX, raw[:60]
    # A node has one fault, and a mapping has one more for each member that it lacks.
    assert max(built) <= 2 * most_nodes(body)


def test_every_event_of_a_batch_has_room_for_a_fault() -> None:
    assert ELEMENTS_MAX >= MAX_EVENTS


def test_the_largest_valid_bodies_are_accepted() -> None:
    text = '", [{\\' * 85
    event = dict.fromkeys(("user_id", "session_id", "item_id", "type", "event_id", "request_id"), "x")
    full = {**event, "timestamp": 1, "value": 1.0, "query": text}
    assert len(parse(EventsRequest, orjson.dumps({"events": [full] * MAX_EVENTS})).events) == MAX_EVENTS
    inline = {"item_id": "i", "type": "view", "timestamp": 1}
    named = {f"n{n}": text[:250] for n in range(32)}
    largest = {
        "user_id": "u",
        "session_id": "s",
        "events": [inline] * 200,
        "scene": "home",
        "context": named,
        "features": named,
        "filter": {f"n{n}": ["v"] * 64 for n in range(8)},
        "exclude": ["e"] * 1000,
        "decoding": {"strategy": "beam", "beam_width": 1, "top_p": 0.5, "temperature": 1},
    }
    assert len(parse(RecommendRequest, orjson.dumps(largest)).exclude) == 1000


def test_every_bad_event_is_named_and_what_is_left_out_is_counted() -> None:
    bad = {"user_id": "u", "timestamp": "x", **{f"n{n}": 0 for n in range(5)}}
    with pytest.raises(InvalidRequest) as caught:
        parse(EventsRequest, orjson.dumps({"events": [bad] * MAX_EVENTS}))
    *faults, last = caught.value.errors
    assert {fault["index"] for fault in faults} == set(range(MAX_EVENTS))
    assert last["type"] == "more_faults"
    assert last["message"].startswith(f"{7 * MAX_EVENTS - len(faults)} more")


def test_what_the_caller_wrote_is_echoed_only_in_part() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(RecommendRequest, json.dumps({"user_id": "u", "n" * 500: 0}).encode())
    assert caught.value.errors[0]["loc"] == ["n" * 64 + "…"]
    assert len(orjson.loads(problem(BadRequest("x" * 5000), "id").body)["detail"]) <= 1001


def test_a_wrong_value_is_one_fault() -> None:
    wrong: tuple[Any, ...] = ([], None, {}, "x" * 257, 2**63)
    for value in wrong:
        with pytest.raises(InvalidRequest) as caught:
            parse(RecommendRequest, json.dumps({"user_id": "u", "context": {"k": value}}).encode())
        (fault,) = caught.value.errors
        assert fault["loc"] == ["context", "k"]


def test_a_list_without_a_largest_size_is_found_when_the_service_starts() -> None:
    class Open(BaseModel):
        names: list[str]

    class Nested(BaseModel):
        inner: dict[str, Open] = Field(max_length=3)

    with pytest.raises(ValueError, match=r"Nested\.inner\.names"):
        most_nodes(Nested)


texts = st.text(alphabet='ab",:[]{}\\\n\u00e9', max_size=8)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def counted(value: Any) -> int:
    """The slow reference: containers, and commas between their members."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(0, len(value) - 1) + sum(map(counted, inner))


@given(values)
@settings(deadline=None)
def test_nodes_are_counted_as_in_a_walk_over_the_parsed_body(value: Any) -> None:
    raw, nodes = json.dumps(value, separators=(",", ":")).encode(), counted(value)
    check_nodes(raw, max(1, nodes))
    if nodes > 1:
        with pytest.raises(InvalidRequest):
            check_nodes(raw, nodes - 1)
