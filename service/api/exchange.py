"""One request and its answer on a connection: uvicorn's, and a way to send an answer in one piece.

uvicorn writes the head of an answer and its body one after the other. The transport sends each at once, so an answer
costs two system calls and two segments, and its client wakes up twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

# Key of the ASGI scope: sends a whole answer (`Exchange.whole`). Other servers do not have it, and get the two messages
# of ASGI.
WHOLE = "gpt4rec.whole"

Whole = Callable[[int, bytes, bytes, bool], Awaitable[None]]


class Exchange(RequestResponseCycle):
    """A request and its answer.

    Args:
        kwargs: Of uvicorn's.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cast("dict[str, Any]", self.scope)[WHOLE] = self.whole

    async def whole(self, status: int, head: bytes, body: bytes, last: bool) -> None:
        """Sends an answer.

        Args:
            status: Its HTTP status.
            head: Its header lines, each with its end, the length of the body among them. They are sent as they are.
            body: The body.
            last: Whether the connection ends with it.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if last:
            self.keep_alive = False
        standing = b"".join(b"%b: %b\r\n" % pair for pair in self.default_headers)
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], standing, head, end, body)))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
