"""The `send` of a request at the gate: what every answer gets on its way, and what became of it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from service.api.answer_body import COMPRESSED_FROM
from service.api.deprecated_call import DeprecatedCall
from service.api.exchange import Whole
from service.api.json_reply import JsonReply

# On every answer: a browser must not guess a content type, nor send the address of the page to other sites.
_SAFE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
# On answers that a browser may show or cache, unless the route sets its own. POST answers are neither.
_SHOWN = [
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
# The same as header lines.
_SAFE_LINES = b"".join(b"%b: %b\r\n" % pair for pair in _SAFE)
_SHOWN_LINES = b"".join(b"%b: %b\r\n" % pair for pair in _SHOWN)
# Status of a request whose client left before the answer began, as in nginx.
_CLIENT_GONE = 499
# Part of uvloop's message for a connection that closed while its answer was made.
_CLOSED = "handler is closed"


class GateAnswer:
    """The `send` of a request: adds the request's id and the safe headers to the answer, and notes its status.

    While the process shuts down, an answer ends its connection, so that the client's next request goes to another
    process.

    Args:
        send: The server's.
        request_id: Of the request.
        draining: Whether the process is shutting down.
        shown: Whether a browser may show or cache the answer.

    Attributes:
        status: Status of the answer; 499 until it begins.
        deprecated: Tells the client and counts that it calls something deprecated; None if it does not.
        at_once: Sends an answer in one piece; None if the server cannot, or there is more to do with the answer.
    """

    def __init__(self, send: Send, request_id: str, draining: Callable[[], bool], *, shown: bool) -> None:
        self._send, self._draining, self._shown = send, draining, shown
        self.request_id = request_id
        self.status = _CLIENT_GONE
        self.deprecated: DeprecatedCall | None = None
        self.at_once: Whole | None = None

    @property
    def started(self) -> bool:
        """Whether the answer has begun."""
        return self.status != _CLIENT_GONE

    async def whole(self, reply: JsonReply) -> bool:
        """Sends an answer in one piece; returns whether that could be done."""
        if self.at_once is None or len(reply.body) >= COMPRESSED_FROM or (own := reply.lines()) is None:
            return False
        self.status = reply.status_code
        lines = b"%b%bx-request-id: %b\r\n" % (own, _SAFE_LINES, self.request_id.encode("ascii"))
        try:
            await self.at_once(
                self.status, lines + _SHOWN_LINES if self._shown else lines, reply.body, self._draining()
            )
        except RuntimeError as error:
            self._gone(error)
        return True

    def _gone(self, error: RuntimeError) -> None:
        """Raises what an answer that could not be sent means."""
        if _CLOSED not in str(error):
            raise error
        self.status = _CLIENT_GONE
        raise ClientDisconnect from error

    async def __call__(self, message: Message) -> None:
        """Sends a part of the answer. Raises ClientDisconnect if the client has left."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            headers = [*given, *_SAFE, (b"x-request-id", self.request_id.encode("ascii"))]
            if self._shown:
                names = {name for name, _ in given}
                headers += [(name, value) for name, value in _SHOWN if name not in names]
            message["headers"] = headers
            if self.deprecated is not None:
                headers += self.deprecated.headers()
            if self._draining():
                headers.append((b"connection", b"close"))
        try:
            await self._send(message)
        except RuntimeError as error:
            self._gone(error)
