"""One request after another on one connection, for measurements that choose a request by the previous answer."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import orjson

from loadtests.load.http_wire import Connection, encode
from loadtests.load.open_loop_driver import Arrival


class Client:
    """One keep-alive connection; one request at a time."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._reply: asyncio.Future[bytes]

    async def open(self) -> Client:
        """Connects."""
        loop = asyncio.get_running_loop()
        where = (self._at.hostname or "", self._at.port or 80)
        _, self._connection = await loop.create_connection(lambda: Connection(self), *where)
        return self

    async def send(self, request: Arrival) -> Any:
        """Returns the body of the answer.

        Raises:
            RuntimeError: If the status is not 200.
        """
        self._reply = asyncio.get_running_loop().create_future()
        self._connection.send(0, encode(request.method, self._at.netloc, request.path, request.body))
        return orjson.loads(await self._reply)

    def answered(self, _connection: Connection, _number: int, status: int, body: bytes) -> None:
        """Completes the request under way."""
        if status == 200:
            self._reply.set_result(body)
        else:
            self._reply.set_exception(RuntimeError(f"{status}: {body[:300]!r}"))

    def failed(self, _connection: Connection, _number: int, kind: str) -> None:
        """Fails the request under way."""
        self._reply.set_exception(RuntimeError(kind))

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
