"""What the gate refuses of a request's head and body, before and while the body is read."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from starlette.types import Message, Receive, Scope

from service.api.connection import REFUSED
from service.common.request_errors import BodyTooLarge, EncodedBody

_WITHOUT_BODY = frozenset({"GET", "OPTIONS"})
# Digits of a length that are read: more than any limit has.
_DIGITS = 20
# Characters of a header that an error shows.
_SHOWN_MAX = 40


def check_head(scope: Scope, most: int) -> None:
    """Checks what the headers say of the body.

    Args:
        scope: Of the request.
        most: Bytes of the largest body.

    Raises:
        BodyTooLarge: The body is longer.
        EncodedBody: The body is encoded.
    """
    headers = scope["state"]["call"].headers
    length = headers.get(b"content-length")
    # Python refuses to convert thousands of digits.
    if length is not None and length.isdigit() and int(length.lstrip(b"0")[:_DIGITS] or 0) > most:
        raise _too_large(most)
    if b"content-encoding" in headers and scope["method"] not in _WITHOUT_BODY:
        _refuse_encoded(scope["headers"])


class BoundedBody:
    """The `receive` of a request: refuses to read more than so many bytes, and what its connection refuses.

    Args:
        receive: The server's.
        most: Bytes of the largest body.
        scope: Of the request.
    """

    def __init__(self, receive: Receive, most: int, scope: Scope) -> None:
        self._receive, self._most, self._scope, self._read = receive, most, scope, 0

    async def __call__(self) -> Message:
        """Returns the next part. Raises BodyTooLarge, or what the connection refuses."""
        message = await self._receive()
        raise_refusal(self._scope)
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise _too_large(self._most)
        return message


def raise_refusal(scope: Scope) -> None:
    """Raises the error with which the connection refuses the request, if it does.

    It raises a copy: an error that was raised keeps its frames, and with them the body, as long as the scope is kept.
    """
    if REFUSED in scope:
        raise copy(scope[REFUSED])


def _too_large(most: int) -> BodyTooLarge:
    """Returns the error for a body of more than `most` bytes."""
    return BodyTooLarge(f"the body is larger than {most} bytes")


def _refuse_encoded(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises EncodedBody if a request says that its body is encoded."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            shown = value[:_SHOWN_MAX].decode("ascii", "replace")
            raise EncodedBody(f"Content-Encoding: {shown} is not read; send the body as plain JSON, without the header")
