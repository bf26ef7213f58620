"""New connections go to the worker that has fewer; one that takes none holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

import pytest

from service.api import listeners
from service.api.listeners import ConnectionShare, SharedListener, bind
from tests.support.aio import asynchronous, eventually

HOST, LIMIT_S = "127.0.0.1", 10.0


class Worker:
    """A worker's listener, which keeps what it accepts."""

    def __init__(self, sock: socket.socket, number: int, counts: list[int], ready: Sequence[int]) -> None:
        self.before, self.accepted = 0, list[asyncio.BaseTransport]()
        share = ConnectionShare(number, counts, ready)
        self.listener = SharedListener(sock.dup(), share, self._protocol, self.connections)

    def connections(self) -> int:
        return self.before + len(self.accepted)

    def _protocol(self) -> asyncio.Protocol:
        kept = self.accepted

        class Kept(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                kept.append(transport)

        return Kept()


@contextlib.asynccontextmanager
async def workers(before: Sequence[int], ready: Sequence[int]) -> AsyncIterator[tuple[int, list[Worker]]]:
    counts = list(before)
    with bind(HOST, 0) as shared:
        those = [Worker(shared, number, counts, ready) for number in range(len(before))]
        for worker, connections in zip(those, before, strict=True):
            worker.before = connections
            worker.listener.start()
        try:
            yield shared.getsockname()[1], those
        finally:
            for worker in those:
                worker.listener.close()
                await worker.listener.wait_closed()
                for transport in worker.accepted:
                    transport.close()


async def connect(port: int, clients: int, those: Sequence[Worker]) -> None:
    """Opens connections and waits until the workers have accepted all of them."""
    before = sum(len(worker.accepted) for worker in those)
    writers = [(await asyncio.open_connection(HOST, port))[1] for _ in range(clients)]

    async def accepted() -> bool:
        return sum(len(worker.accepted) for worker in those) == before + clients

    await eventually(accepted, LIMIT_S)
    for writer in writers:
        writer.close()


@asynchronous
async def test_a_worker_that_is_behind_takes_the_next_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_YIELD_S", 60.0)  # a busy machine may need more than a moment to see a connection
    async with workers([12, 2], [1, 1]) as (port, those):
        await connect(port, 10, those)
        assert [len(worker.accepted) for worker in those] == [0, 10]


@asynchronous
async def test_workers_share_connections_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_YIELD_S", 0.05)
    async with workers([12, 12], [1, 1]) as (port, those):
        await connect(port, 20, those)
        assert abs(those[0].connections() - those[1].connections()) <= 2


@asynchronous
async def test_connections_that_the_other_worker_leaves_are_taken() -> None:
    async with workers([0, 5], [1, 1]) as (port, those):
        those[0].listener.close()  # it hangs: it is ready, has few connections, and takes none
        await connect(port, 8, those)
        assert len(those[1].accepted) == 8


@pytest.mark.parametrize(("ready", "ahead"), [((1, 1, 1), True), ((1, 0, 1), False), ((0, 0, 0), False)])
def test_only_workers_that_accept_requests_count(ready: tuple[int, ...], ahead: bool) -> None:
    share = ConnectionShare(0, [4, 1, 4], ready)
    assert share.ahead(4) is ahead
    assert not share.ahead(1)
