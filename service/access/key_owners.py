"""Which space a key or token belongs to, where a deployment has several spaces.

The look-up goes by SHA-256 digests, so its time tells nothing about a secret that a caller does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.access.keys import Access, Keys, digest
from service.settings.space import DEFAULT


@dataclass(frozen=True, slots=True)
class _Space:
    access: Access
    place: str


class KeyOwners:
    """The access rules of all spaces. Key sets may be replaced while the service runs, so each look-up sees the latest.

    The ops and metrics tokens of the process belong to no space: they hold for all.
    """

    def __init__(self) -> None:
        self._spaces: dict[str, _Space] = {}
        self._sets: list[Keys] = []
        self._owners: dict[bytes, str] = {}

    def add(self, space: str, access: Access, place: str) -> None:
        """Adds a space.

        Args:
            space: Its name.
            access: Its access rules.
            place: Where its secrets are configured, for messages.
        """
        self._spaces[space] = _Space(access, place)

    def access(self, space: str) -> Access | None:
        """Returns the access rules of a space, None if there is no such space."""
        found = self._spaces.get(space)
        return None if found is None else found.access

    def owner(self, presented: str | None) -> str | None:
        """Returns the name of the space that a secret belongs to; None if it belongs to none."""
        if presented is None:
            return None
        sets = [keys for name, space in self._spaces.items() for keys in _own(name, space.access)]
        if len(sets) != len(self._sets) or any(new is not old for new, old in zip(sets, self._sets, strict=True)):
            self._owners = {
                known: name
                for name, space in self._spaces.items()
                for keys in _own(name, space.access)
                for known in keys.digests()
            }
            self._sets = sets
        return self._owners.get(digest(presented))

    def taken(self, access: Access, keys: Keys) -> str | None:
        """Returns the place of another space that has one of the secrets, None if there is none."""
        for space in self._spaces.values():
            its = space.access
            if its is not access and any(
                keys.shares(one) for one in (its.api_keys, its.ops_tokens, its.metrics_tokens)
            ):
                return space.place
        return None


def _own(name: str, access: Access) -> tuple[Keys, ...]:
    return (access.api_keys,) if name == DEFAULT else (access.api_keys, access.ops_tokens)
