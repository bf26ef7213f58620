"""The fields of the shared choice of a model: the served version and the versions that rollbacks go back to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Earlier versions that rollbacks can go back to, one after the other.
EARLIER_MAX = 10


def usable(fields: Mapping[str, Any]) -> bool:
    """Returns whether this release can use the shared choice of a model."""
    named = (fields.get("version"), fields.get("deployed"), fields.get("previous"))
    earlier = fields.get("earlier", [])
    listed = isinstance(earlier, list) and all(isinstance(name, str) for name in earlier)
    return isinstance(named[0], str) and all(name is None or isinstance(name, str) for name in named) and listed


def earlier_versions(fields: Mapping[str, Any]) -> list[str]:
    """Returns the versions that rollbacks go back to, the nearest first.

    A choice of an older release names the nearest one alone.
    """
    return list(fields.get("earlier") or filter(None, [fields.get("previous")]))


def after_activation(version: str, left: str, earlier: Sequence[str]) -> list[str]:
    """Returns the earlier versions once a version is activated. None of them is listed twice.

    Args:
        version: The version that is served from now on.
        left: The version that was served until now; it may be the same.
        earlier: The earlier versions until now.
    """
    kept = list(earlier) if version == left else [left, *(name for name in earlier if name != left)]
    return [name for name in kept if name != version][:EARLIER_MAX]


def after_rollback(version: str, left: str, earlier: Sequence[str]) -> list[str]:
    """Returns the earlier versions once a rollback is done, without the one it left: no further rollback returns to it.

    Args:
        version: The version that the rollback returned to.
        left: The version that was served until now.
        earlier: The earlier versions until now.
    """
    return [name for name in earlier if name not in (version, left)]


def chosen_fields(version: str, earlier: Sequence[str], deployed: str | None) -> dict[str, Any]:
    """Returns the fields of a choice; `previous` is for older releases, which know only the nearest earlier version.

    Args:
        version: The version to serve.
        earlier: The versions that rollbacks go back to, the nearest first.
        deployed: Name of the configured artefact that the choice is valid for.
    """
    return {
        "version": version,
        "previous": next(iter(earlier), None),
        "earlier": list(earlier),
        "deployed": deployed,
    }
