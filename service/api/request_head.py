"""What the head of a request must be, and what it must not make of the bytes behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from service.common.errors import ServiceError
from service.common.request_errors import BadRequest, HeadTooLarge, TargetTooLong

HEAD_MAX = 32_768
HEADERS_MAX = 100
TARGET_MAX = 8_192
# A name or an address (RFC 3986, 3.2.2) and a port, or nothing. A comma is legal in a name, but proxies join two
# headers by one.
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(:[0-9]{0,5})?")

Headers = Sequence[tuple[bytes, bytes]]


def size_error(target: bytes, headers: Headers) -> ServiceError | None:
    """Returns the error of a complete head that is too large, None if it is not."""
    if len(target) > TARGET_MAX:
        return TargetTooLong()
    if len(headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in headers) > HEAD_MAX:
        return HeadTooLarge()
    return None


def framing_error(version: str, headers: Headers) -> ServiceError | None:
    """Returns the error of a head that other servers could read in another way than this one, None if there is none.

    A request has one `Host`, which is a host (RFC 9112, 3.2; before HTTP/1.1 it may have none), and, if at all, one
    transfer coding, which is `chunked` (6.1). The parser refuses what else is ambiguous, such as two lengths.

    Args:
        version: Of HTTP, such as `1.1`.
        headers: Names in lower case, and values.
    """
    hosts = codings = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value.strip(b" \t")):
                return BadRequest("the Host header is no host, or more than one")
        elif name == b"transfer-encoding":
            codings += 1
            if version == "1.0" or value.strip().lower() != b"chunked":
                return BadRequest("the only transfer encoding that is read here is chunked, in HTTP/1.1")
    if codings > 1:
        return BadRequest("a request has at most one Transfer-Encoding header")
    if hosts != 1 and (hosts or version != "1.0"):
        return BadRequest("a request has exactly one Host header")
    return None


def without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns the bytes of a head, without its wish to go on in another protocol.

    No other protocol is spoken here, and a server may ignore the wish (RFC 9110, 7.8). The parser cannot: it would take
    the declared body for the bytes of the other protocol. So it gets the head again without that header.

    Args:
        method: Of the request.
        target: As it was sent.
        version: Of HTTP, such as `1.1`.
        headers: Names in lower case, and values as the parser found them, which have no line ends.
    """
    lines = [b"%s: %s" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, target, version.encode("ascii")), *lines, b"", b""])
