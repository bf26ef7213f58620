"""The stored features of a user or session: what lists may know of who asks. One value beside the log.

Packed as text:

    format "1" · stamp, 16 hex digits · JSON object of the values by name

The stamp is a digest of the values, so it tells a request whether its copy is current (`lua_scripts.READ`). A value of
another format counts as none; the next write replaces it. The number of features and their size are bounded, so a read
is. Features live as long as the log: each write and each event renews them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.store.lua_script import CLEAN, READS, TYPED, Script

_FORMAT = b"1"
_STAMP = slice(1, 17)
_HEADER_BYTES = 17

FEATURES_MAX = 32
# Of the packed values. 32 features of 64 characters fit.
FEATURES_BYTES_MAX = 4096

Values = Mapping[str, Any]

# KEYS features   ARGV stamp that must be stored ("" for none, "*" for any), packed value ("": deleted), TTL ms
# → 1 written, 0 another stamp is stored
WRITE_FEATURES = Script(
    TYPED
    + CLEAN
    + """
if ARGV[1] ~= '*' and typed('', 'GETRANGE', KEYS[1], 1, 16) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  return redis.call('UNLINK', KEYS[1])
end
clean(KEYS[1], 'string')
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)

# KEYS features   → the packed value
READ_FEATURES = Script(
    READS
    + TYPED
    + """
return typed(false, 'GET', KEYS[1])
"""
)

ALL = (WRITE_FEATURES, READ_FEATURES)


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """Features as they are stored.

    Attributes:
        stamp: Digest of the values; "" if nothing is stored.
        values: Texts, numbers and truth values by name.
        size: Bytes of the packed value.
    """

    stamp: str = ""
    values: Values = field(default_factory=dict)
    size: int = 0

    @property
    def stamp_bytes(self) -> bytes:
        """The stamp as Redis compares it; a value that this service did not write may have any."""
        return self.stamp.encode("latin-1")

    @classmethod
    def unpack(cls, packed: bytes | None) -> UserFeatures:
        """Reads a stored value; None means that there is none."""
        if not packed:
            return NO_FEATURES
        stamp = packed[_STAMP].decode("latin-1")
        try:
            values = orjson.loads(packed[_HEADER_BYTES:]) if packed[:1] == _FORMAT else {}
        except orjson.JSONDecodeError:
            values = {}
        return cls(stamp, values if isinstance(values, dict) else {}, len(packed))

    def filled(self, more: Values) -> Values:
        """Returns the values, and those of `more` that are not among them, in their order, as far as the bounds allow.

        Args:
            more: Values by name.
        """
        merged = dict(self.values)
        for name, value in more.items():
            if name not in merged and fits({**merged, name: value}):
                merged[name] = value
        return merged


NO_FEATURES = UserFeatures()


def pack(values: Values) -> bytes:
    """Returns values as they are stored: the same bytes whatever their order; nothing for no values."""
    if not values:
        return b""
    body = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    stamp = hashlib.blake2b(body, digest_size=8).hexdigest()
    return _FORMAT + stamp.encode() + body


def fits(values: Values) -> bool:
    """Returns whether values are within the bounds of their number and their packed size."""
    return len(values) <= FEATURES_MAX and len(pack(values)) <= FEATURES_BYTES_MAX
