"""The cursor of a list: what is left of it, sealed so that only this service can make or change one.

    base64url( format · MAC · zlib(JSON) )        the MAC is a keyed BLAKE2b over format and content

It carries the ranked tail itself, so the next page is what the first list ranked, whatever the model or the catalogue
have become, and no replica has to remember anything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import orjson

from service.common.request_errors import InvalidRequest
from service.schemas.recommend_request import CURSOR_MAX

# Items that a cursor carries at most; long ids leave room for fewer.
TAIL_MAX = 200
_FORMAT = b"\x01"
_MAC_BYTES = 16


class CursorRefused(InvalidRequest):
    """The cursor is not one of this service, or belongs to another user."""

    reason = "invalid_cursor"
    title = "The cursor cannot be used"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, [{"loc": ["cursor"], "message": detail, "type": self.reason}])


@dataclass(frozen=True, slots=True)
class PageToken:
    """What is left of a list.

    Attributes:
        subject: Tag of the user or session whose list it is; "" for nobody.
        erasure: The word of the subject's last erasure when the cursor was made.
        expires_ms: When it ends, in epoch milliseconds.
        given: Items of the list that pages before have had.
        items: [n ≤ TAIL_MAX] ids, in order.
        scores: [n] their scores.
        log_propensities: [d ≤ n] of the leading items, which were drawn; None if the law is not known.
        drawn: Number of leading items that were drawn.
        exclude_seen: Whether items that were seen meanwhile are left out.
        about: What made the list, for answers and records.
    """

    subject: str
    erasure: str
    expires_ms: int
    given: int
    items: Sequence[str]
    scores: Sequence[float]
    log_propensities: Sequence[float] | None
    drawn: int
    exclude_seen: bool
    about: Mapping[str, Any]

    def without_first(self, n: int, given: int) -> PageToken:
        """Returns what is left behind the first n items, of which a page has `given`."""
        laws = None if self.log_propensities is None else self.log_propensities[n:]
        return replace(
            self,
            given=self.given + given,
            items=self.items[n:],
            scores=self.scores[n:],
            log_propensities=laws,
            drawn=max(0, self.drawn - n),
        )

    def sealed(self, key: bytes) -> str | None:
        """Returns the cursor; None if nothing is left, or what made the list takes more room than a cursor has."""
        token = self
        while len(token.items):
            content = orjson.dumps(
                {name: getattr(token, name) for name in PageToken.__slots__}, option=orjson.OPT_SERIALIZE_NUMPY
            )
            packed = zlib.compress(content)
            raw = _FORMAT + _mac(key, packed) + packed
            cursor = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
            if len(cursor) <= CURSOR_MAX:
                return cursor
            token = token._first(len(token.items) // 2)
        return None

    def _first(self, n: int) -> PageToken:
        laws = None if self.log_propensities is None else self.log_propensities[:n]
        return replace(
            self, items=self.items[:n], scores=self.scores[:n], log_propensities=laws, drawn=min(n, self.drawn)
        )


def opened(cursor: str, key: bytes) -> PageToken:
    """Returns what a cursor carries.

    Args:
        cursor: As an answer had it.
        key: What it was sealed with.

    Raises:
        CursorRefused: The service did not make it, or it was changed.
    """
    refused = CursorRefused("this is no cursor of this service; take it from the last page as it is, or ask anew")
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise refused from None
    mac, packed = raw[1 : 1 + _MAC_BYTES], raw[1 + _MAC_BYTES :]
    if raw[:1] != _FORMAT or not hmac.compare_digest(mac, _mac(key, packed)):
        raise refused
    return PageToken(**orjson.loads(zlib.decompress(packed)))


def _mac(key: bytes, packed: bytes) -> bytes:
    return blake2b(_FORMAT + packed, key=key[:64], digest_size=_MAC_BYTES).digest()
