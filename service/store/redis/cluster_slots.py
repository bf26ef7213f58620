"""Which node of a Redis Cluster has which slot, and what its replies say about that. No I/O."""

from __future__ import annotations

from binascii import crc_hqx
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

SLOTS = 16_384

Address = tuple[str, int]


def key_slot(key: str) -> int:
    """Returns the slot of a key: of the part between its first braces, if there is one."""
    packed = key.encode()
    start = packed.find(b"{")
    if start >= 0:
        end = packed.find(b"}", start + 1)
        if end > start + 1:
            packed = packed[start + 1 : end]
    return crc_hqx(packed, 0) % SLOTS


class SlotMap:
    """Who has which slot.

    Attributes:
        owners: The primary of each slot; None where no node has it.
        replicas: Addresses of the replicas.
        ranges: What the map was made from: first slot, last slot and owner, in order.
    """

    def __init__(self, ranges: Iterable[tuple[int, int, Address]], replicas: Iterable[Address] = ()) -> None:
        """Makes a map.

        Raises:
            ValueError: A slot does not exist.
        """
        self.ranges = tuple(sorted(ranges))
        self.replicas = tuple(sorted(set(replicas)))
        self.owners: list[Address | None] = [None] * SLOTS
        for first, last, owner in self.ranges:
            self.owners[first : last + 1] = [owner] * (last + 1 - first)
        if len(self.owners) != SLOTS:
            raise ValueError("there are 16,384 slots")

    @property
    def primaries(self) -> tuple[Address, ...]:
        """The primaries that have slots, sorted."""
        return tuple(sorted({owner for _, _, owner in self.ranges}))

    @property
    def uncovered(self) -> int:
        """Number of slots that no node has."""
        return self.owners.count(None)


def parse_slots(reply: Sequence[Any], asked: Address) -> SlotMap:
    """Returns the map of a reply to CLUSTER SLOTS; a node that does not know its own address is the one asked.

    Raises:
        ValueError: The reply has another form.
    """
    ranges: list[tuple[int, int, Address]] = []
    replicas: list[Address] = []
    try:
        for first, last, primary, *others in reply:
            ranges.append((int(first), int(last), _address(primary, asked)))
            replicas += [_address(one, asked) for one in others]
    except (TypeError, IndexError) as error:
        raise ValueError(f"this is no reply to CLUSTER SLOTS: {error}") from error
    return SlotMap(ranges, replicas)


def agreed(maps: Sequence[SlotMap]) -> SlotMap:
    """Returns the map that most nodes have: one that was cut off from the others may still have an old one.

    Raises:
        ValueError: There is none.
    """
    if not maps:
        raise ValueError("no map")
    ((ranges, _),) = Counter(one.ranges for one in maps).most_common(1)
    return next(one for one in maps if one.ranges == ranges)


Kind = Literal["moved", "ask", "again"]


@dataclass(frozen=True)
class Redirect:
    """What a reply says about where, or when, to ask instead.

    Attributes:
        kind: `moved`: another node has the slot. `ask`: another node is about to get it, and has these keys already.
            `again`: some of the keys are here and some there.
        to: The other node; None for `again`. An empty host is that of the node that replied.
    """

    kind: Kind
    to: Address | None = None


def redirect_of(error: object) -> Redirect | None:
    """Returns where a reply redirects to; None if it is no redirection."""
    if not isinstance(error, Exception):
        return None
    words = str(error).split(" ")
    code = words[0]
    if isinstance(error, TryAgainError) or code == "TRYAGAIN":
        return Redirect("again")
    if not isinstance(error, AskError) and code not in ("MOVED", "ASK"):
        return None
    host, _, port = words[-1].rpartition(":")
    if not port.isdigit():
        return None
    return Redirect("moved" if isinstance(error, MovedError) or code == "MOVED" else "ask", (host, int(port)))


def is_down(error: object) -> bool:
    """Returns whether a reply says that its node does not serve the slot now."""
    return isinstance(error, ClusterDownError) or str(error).startswith("CLUSTERDOWN")


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = node[0].decode() if isinstance(node[0], bytes) else (node[0] or "")
    return (asked[0] if host in ("", "?") else str(host)), int(node[1])
