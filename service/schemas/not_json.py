"""Says what a body is that is not JSON, so that its sender knows what to change."""

from __future__ import annotations

import codecs

# How bodies begin that are not JSON in UTF-8. The byte order marks of UTF-32 begin like those of UTF-16.
_BEGINNINGS = (
    (codecs.BOM_UTF8, "the body begins with a byte order mark; send UTF-8 without one"),
    (codecs.BOM_UTF16_LE, "the body is UTF-16 or UTF-32; send UTF-8"),
    (codecs.BOM_UTF16_BE, "the body is UTF-16 or UTF-32; send UTF-8"),
    (codecs.BOM_UTF32_BE, "the body is UTF-16 or UTF-32; send UTF-8"),
    (b"\x1f\x8b", "the body is compressed by gzip; send it uncompressed"),
    (b"\x28\xb5\x2f\xfd", "the body is compressed by zstd; send it uncompressed"),
)
_INVALID = "the body is not valid JSON"


def what_it_is(raw: bytes, message: str) -> str:
    """Returns a sentence about a body that is not JSON.

    Args:
        raw: The body.
        message: What the parser says, with the place; it never quotes the body.
    """
    if not raw or raw.isspace():
        return "the body is empty; send a JSON object"
    for beginning, text in _BEGINNINGS:
        if raw.startswith(beginning):
            return text
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8, from byte {error.start} on"
    where = message.removeprefix("Invalid JSON: ")
    return f"{_INVALID}: {where}" if where != message else _INVALID
