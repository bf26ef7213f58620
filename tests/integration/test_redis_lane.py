"""The connection that all reads share: in order, lost and found again, and never another caller's reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis
import pytest

from service.common.errors import StoreUnavailable
from service.store.redis.redis_read_lane import RedisLane
from tests.support.aio import asynchronous, eventually


@asynccontextmanager
async def lane_to(*replies: bytes | None, slowest_s: float = 5.0) -> AsyncIterator[tuple[RedisLane, list[bytes]]]:
    """A lane to a server that answers what it reads with each of `replies` in turn; None closes the connection."""
    heard: list[bytes] = []
    left = list(replies)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while piece := await reader.read(65_536):
            heard.append(piece)
            if left:
                reply = left.pop(0)
                if reply is None:
                    writer.close()
                    return
                writer.write(reply)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    lane = RedisLane({"host": "127.0.0.1", "port": port}, slowest_s=slowest_s, retry_s=0.0)
    try:
        await lane.connect()
        yield lane, heard
    finally:
        await lane.close()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


@asynchronous
async def test_what_is_asked_in_one_turn_leaves_in_one_write_and_comes_back_in_order() -> None:
    async with lane_to(b"+a\r\n+b\r\n$1\r\nc\r\n") as (lane, heard):
        asked = [lane.ask(("GET", name)) for name in "abc"]
        assert await asyncio.gather(*asked) == [b"a", b"b", b"c"]
    assert len(heard) == 1 and heard[0].count(b"GET") == 3


@asynchronous
async def test_a_caller_that_went_away_does_not_leave_its_reply_to_the_next() -> None:
    async with lane_to(b"+mine\r\n+yours\r\n") as (lane, _):
        first, second = lane.ask(("GET", "mine")), lane.ask(("GET", "yours"))
        first.cancel()
        assert await second == b"yours"


@asynchronous
async def test_a_reply_cut_in_the_middle_fails_its_caller_and_the_lane_opens_again() -> None:
    async with lane_to(b"$10\r\nhal", None, b"+whole\r\n") as (lane, heard):
        cut = lane.ask(("GET", "a"))

        async def half_there() -> bool:
            return bool(heard)

        await eventually(half_there, within_s=10.0)
        other = lane.ask(("GET", "b"))
        for lost in (cut, other):
            with pytest.raises(StoreUnavailable):
                await lost
        assert not lane.open
        with pytest.raises(StoreUnavailable):
            lane.ask(("GET", "c"))
        await lane.connect()
        assert await lane.ask(("GET", "c")) == b"whole"


@asynchronous
async def test_a_server_that_is_silent_is_given_up() -> None:
    async with lane_to(slowest_s=0.05) as (lane, _):
        asked = [lane.ask(("GET", name)) for name in "ab"]
        for one in asked:
            with pytest.raises(StoreUnavailable):
                await one
        assert not lane.open


@asynchronous
async def test_a_server_of_another_protocol_is_given_up() -> None:
    async with lane_to(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (lane, _):
        with pytest.raises(StoreUnavailable):
            await lane.ask(("GET", "a"))


@asynchronous
async def test_an_error_of_the_server_is_the_result() -> None:
    async with lane_to(b"-NOSCRIPT no such script\r\n") as (lane, _):
        reply = await lane.ask(("EVALSHA", "x", 0))
        assert isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
        assert lane.open


@asynchronous
async def test_callers_that_find_no_server_share_one_attempt() -> None:
    lane = RedisLane({"path": "/nonexistent/valkey.sock"}, slowest_s=1.0, retry_s=60.0)
    first = lane.connect()
    assert lane.connect() is first

    async def tried() -> bool:
        return first.done()

    await eventually(tried, within_s=10.0)
    with pytest.raises(StoreUnavailable):
        lane.connect()
    with contextlib.suppress(OSError):
        first.result()
    await lane.close()


@asynchronous
async def test_a_connection_that_was_left_does_not_outlive_the_lane() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    lane = RedisLane({"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}, slowest_s=600.0)
    await lane.connect()
    lane.leave()
    await lane.close()
    await asyncio.wait_for(ended.wait(), 30.0)
    server.close()
    await server.wait_closed()
