"""Who sends requests: which peers are trusted proxies, and how far the clock of each can be believed."""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.types import Scope

from service.common.deadline import Waits
from service.common.errors import SettingsError

# Peers whose waits are remembered; the one that has been silent longest is forgotten first.
SENDERS_MAX = 1024
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_PREFIX_MAX = 128

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(text: str) -> tuple[Network, ...]:
    """Parses the setting of trusted proxies: addresses and networks, separated by commas.

    Raises:
        SettingsError: An entry is neither.
    """
    found = []
    for entry in (part.strip() for part in text.split(",") if part.strip()):
        try:
            found.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise SettingsError(
                f"GPT4REC_TRUSTED_PROXIES: {entry} is neither an address nor a network; write it as 10.0.0.0/8"
            ) from None
    return tuple(found)


def path_prefix(text: str) -> str | None:
    """Returns a path prefix without its last slash, "" for none; None if the text is not a path such as `/shop/rec`."""
    prefix = text.strip().rstrip("/")
    return prefix if not prefix or (len(prefix) <= _PREFIX_MAX and _PREFIX.fullmatch(prefix)) else None


def root_path_of(text: str) -> str:
    """Parses the setting of the path prefix.

    Raises:
        SettingsError: It is not a path such as `/shop/rec`.
    """
    prefix = path_prefix(text)
    if prefix is None:
        raise SettingsError(f"GPT4REC_ROOT_PATH: {text} is not a path prefix; write it as /shop/rec")
    return prefix


@dataclass(slots=True)
class Sender:
    """One peer.

    Attributes:
        trusted: Whether it is a trusted proxy.
        waits: How long its requests waited, as far as its clock can be believed.
    """

    trusted: bool
    waits: Waits = field(default_factory=Waits)


class Senders:
    """Knows the peers that send headers which not everybody may send.

    Each peer is judged by itself: the clock of one proxy says nothing about that of another.

    Args:
        trusted: The networks of trusted proxies. If there are none, no peer is trusted, and every peer may say when
            its requests began.
    """

    def __init__(self, trusted: tuple[Network, ...] = ()) -> None:
        self._networks = trusted
        self._known: OrderedDict[str, Sender] = OrderedDict()

    def of(self, scope: Scope) -> Sender:
        """Returns the peer of a request."""
        client = scope.get("client")
        host = client[0] if client else ""
        sender = self._known.get(host)
        if sender is None:
            sender = self._known[host] = Sender(self._trusts(host))
            if len(self._known) > SENDERS_MAX:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(host)
        return sender

    def tells_times(self, sender: Sender) -> bool:
        """Returns whether the peer may say when its requests began."""
        return sender.trusted or not self._networks

    def _trusts(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        plain = getattr(address, "ipv4_mapped", None) or address
        return any(plain in network for network in self._networks)
