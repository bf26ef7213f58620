"""The transport of the rolling load: connections are kept, and one that ends early is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from loadtests.fleet.rolling_load import CountingTransport, Outcomes
from loadtests.fleet.wire_transport import WireTransport
from tests.support.aio import asynchronous

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that gives these answers in turn; its address, and the ports of the clients' connections."""
    left, ports = list(answers), list[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        while await reader.readuntil(b"\r\n\r\n"):
            answer = left.pop(0)
            writer.write(answer)
            if answer is not OK:
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ports


@asynchronous
async def test_a_connection_is_used_again_until_an_answer_ends_it() -> None:
    async with answering(OK, LAST, HALF) as (url, ports), httpx.AsyncClient(transport=WireTransport()) as client:
        assert (await client.get(url)).text == "ok"
        refused = await client.get(url)
        assert (refused.status_code, refused.text, len(ports)) == (503, "no", 1)
        with pytest.raises(httpx.ReadError):
            await client.get(url)
        assert len(ports) == 2


@asynchronous
async def test_every_attempt_that_fails_is_counted_by_its_path() -> None:
    outcomes = Outcomes()
    async with answering(LAST, HALF) as (url, _), httpx.AsyncClient(transport=CountingTransport(outcomes)) as client:
        await client.get(f"{url}/events")
        with pytest.raises(httpx.ReadError):
            await client.get(f"{url}/recommend")
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient(transport=CountingTransport(outcomes)) as client:
            await client.get(f"{url}/recommend")
    assert dict(outcomes.statuses) == {"/events 503": 1}
    assert dict(outcomes.broken) == {"/recommend ReadError": 1, "/recommend ConnectError": 1}
    assert outcomes.errors == 3
