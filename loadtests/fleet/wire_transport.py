"""A transport for httpx with keep-alive connections of its own: an attempt never waits for another one.

The pool of httpcore 1.0 lets a call wait for many seconds on a busy machine although it may open more connections. What
is measured here is the service, so an attempt takes a free connection or opens one at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h11
import httpx

_PIECE = 65_536


@dataclass(slots=True)
class _Connection:
    """An open connection, and where its protocol stands."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return not (self.writer.is_closing() or self.reader.at_eof())


class WireTransport(httpx.AsyncBaseTransport):
    """Sends requests in plain HTTP/1.1, for one event loop."""

    def __init__(self) -> None:
        self._free: list[_Connection] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and reads the whole answer.

        Raises:
            httpx.ConnectError: No connection could be opened.
            httpx.ReadError: The connection ended or broke before the answer was whole.
        """
        connection = self._take()
        if connection is None:
            try:
                connection = _Connection(*await asyncio.open_connection(request.url.host, request.url.port or 80))
            except OSError as error:
                raise httpx.ConnectError(str(error), request=request) from error
        try:
            response = await _exchange(connection, request)
        except (OSError, h11.RemoteProtocolError) as error:
            connection.writer.close()
            raise httpx.ReadError(str(error), request=request) from error
        except BaseException:
            connection.writer.close()
            raise
        if connection.state.our_state is h11.DONE and connection.state.their_state is h11.DONE:
            connection.state.start_next_cycle()
            self._free.append(connection)
        else:
            connection.writer.close()
        return response

    async def aclose(self) -> None:
        """Closes the connections."""
        for connection in self._free:
            connection.writer.close()
        self._free.clear()

    def _take(self) -> _Connection | None:
        """Returns the connection that was used last, None if there is none; those that ended are dropped."""
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        return None


async def _exchange(connection: _Connection, request: httpx.Request) -> httpx.Response:
    state, body = connection.state, await request.aread()
    head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    parts = [state.send(head), state.send(h11.Data(data=body)) if body else b"", state.send(h11.EndOfMessage())]
    connection.writer.write(b"".join(part for part in parts if part))
    await connection.writer.drain()
    answer, content = None, list[bytes]()
    while not isinstance(event := state.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            state.receive_data(await connection.reader.read(_PIECE))
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            content.append(bytes(event.data))
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the connection ended before the answer")
    if answer is None:
        raise h11.RemoteProtocolError("there was no answer")
    return httpx.Response(answer.status_code, headers=list(answer.headers), content=b"".join(content), request=request)
