"""Which node has which slot, from what nodes say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot as slot_by_redis_py
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from service.store.redis.cluster_slots import Redirect, SlotMap, agreed, is_down, key_slot, parse_slots, redirect_of

A, B = ("a", 1), ("b", 2)


@given(st.text(alphabet="{}ab:é1"))
def test_a_key_is_in_the_slot_in_which_redis_py_looks_for_it(key: str) -> None:
    assert key_slot(key) == slot_by_redis_py(key.encode())


def test_a_reply_says_who_has_a_slot_and_who_copies() -> None:
    reply = [[5, 16383, [b"b", 2, b"id"], [b"", 4, b"id"]], [0, 3, [None, 1, b"id"], [b"c", 3, b"id"]]]
    found = parse_slots(reply, asked=("asked", 9))
    assert found.owners[3] == ("asked", 1) and found.owners[4] is None and found.owners[16383] == B
    assert (found.primaries, found.replicas) == ((("asked", 1), B), (("asked", 4), ("c", 3)))
    assert found.uncovered == 1


@pytest.mark.parametrize("reply", [[1], [[0, 16384, [b"a", 1, b"id"]]], [[0, 1]], ["x"]])
def test_a_reply_of_another_form_is_refused(reply: list[object]) -> None:
    with pytest.raises(ValueError):
        parse_slots(reply, asked=A)


def test_the_map_of_most_nodes_is_believed() -> None:
    """A node that was cut off goes on with what it knew."""
    old, new = SlotMap([(0, 16383, A)]), SlotMap([(0, 16383, B)])
    assert agreed([old, new, SlotMap([(0, 16383, B)])]).primaries == (B,)
    assert agreed([old]) is old
    with pytest.raises(ValueError, match="no map"):
        agreed([])


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (MovedError("7 h:1"), Redirect("moved", ("h", 1))),
        (ResponseError("MOVED 7 ::1:6379"), Redirect("moved", ("::1", 6379))),
        (AskError("7 :1"), Redirect("ask", ("", 1))),
        (ResponseError("ASK 7 h:1"), Redirect("ask", ("h", 1))),
        (TryAgainError("Multiple keys request during rehashing of slot"), Redirect("again")),
        (ResponseError("ERR MOVED"), None),
        (ResponseError("MOVED nowhere"), None),
        (b"MOVED 7 h:1", None),
    ],
)
def test_a_redirection_says_where_to_ask(reply: object, wanted: Redirect | None) -> None:
    assert redirect_of(reply) == wanted


def test_a_node_that_serves_nothing_is_told_from_one_that_redirects() -> None:
    assert is_down(ResponseError("CLUSTERDOWN The cluster is down"))
    assert not is_down(MovedError("7 h:1"))
