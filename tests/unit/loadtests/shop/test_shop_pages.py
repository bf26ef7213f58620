"""Sessions that turn pages on two replicas, in short; and that a list that repeats or skips is noticed."""

from __future__ import annotations

import random

from loadtests.shop.pages import Found, Session, play, rows
from tests.support.aio import asynchronous
from tests.support.fakes import N_ITEMS
from tests.support.serving import serving
from tests.support.valkey import Valkey

ITEMS = [str(n) for n in range(N_ITEMS)]


@asynchronous
async def test_sessions_of_pages_have_no_repeat_and_no_gap_but_what_was_forbidden(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="turn:", operator=True) as one,
        serving(redis_url=shared_valkey.url, prefix="turn:", operator=True) as two,
    ):
        found = await play([one.client, two.client], ITEMS, sessions=8, pages=10)
    assert (found.repeats, found.gaps, found.kept) == (0, 0, 0)
    assert found.turned > 20 and found.forbidden > 3
    assert all(row.holds in (True, None) for row in rows(found, 8, 10))


def test_what_is_repeated_or_left_out_is_counted() -> None:
    session = Session([], ITEMS, "u", random.Random(0))
    shown = ["9"]
    left = session.judged(["1", "9", "4"], ["1", "2", "3", "4", "5"], {"2"}, 3, shown)
    assert (session.found.repeats, session.found.gaps, left) == (1, 1, ["5"])
    assert not all(row.holds in (True, None) for row in rows(session.found, 1, 1))
    assert rows(Found(), 1, 1)[0].holds
