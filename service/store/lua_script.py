"""A Lua script, the commands that it needs, and the helpers that scripts share."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

# A script that only reads says so in its first line: it then runs on a replica, without memory or disk for writes, and
# while writes are paused for a fail-over. Redis before version 7 does not know this line.
READS = "#!lua flags=no-writes\n"
# A script that belongs to an erasure writes little and must not fail for want of memory: who wants to be forgotten is.
ERASES = "#!lua flags=allow-oom\n"

# typed: what a command returns, and `instead` for a key of another type. This service did not write such a key, and it
# must not stop anything. An error of another kind is raised.
# clean: removes a key of another type before it is written; returns how many were removed.
TYPED = """
local function typed(instead, ...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply['err'] then return reply end
  if string.find(reply['err'], 'WRONGTYPE', 1, true) then return instead end
  return redis.call(...)
end
"""
CLEAN = """
local function clean(key, kind)
  local found = redis.call('TYPE', key)['ok']
  if found == kind or found == 'none' then return 0 end
  return redis.call('UNLINK', key)
end
"""

_COMMAND = re.compile(r"""(?:\bredis\.call\(|\btyped\((?:false|0|''|\{[^}]*\}), )['"](\w+)['"]""")


@dataclass(frozen=True)
class Script:
    """A Lua script, and the SHA-1 by which EVALSHA calls it.

    Attributes:
        source: Its text.
        sha: SHA-1 of the text.
        optional: Whether it copes with every error of its commands.
        commands: The commands without which it fails, in capitals.
    """

    source: str
    optional: bool = False
    sha: str = field(init=False)
    commands: frozenset[str] = field(init=False)

    @property
    def writes(self) -> bool:
        """Whether it may write."""
        return not self.source.startswith(READS)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)
        names = () if self.optional else _COMMAND.findall(self.source)
        object.__setattr__(self, "commands", frozenset(name.upper() for name in names))
