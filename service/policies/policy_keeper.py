"""The policies in force: those that operators set for every replica, else those of the file, as it is now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from service.common import logs
from service.common.errors import PolicyError
from service.coordination.shared_value import Shared
from service.policies import policies
from service.policies.policies import Policies, PolicyBook

log = logs.get(__name__)

POLL_S = 2.0


def usable(fields: dict[str, Any]) -> bool:
    """Whether shared policies are ones that this release understands."""
    return _parsed(fields) is not None or fields.get("policies", ...) is None


class PolicyKeeper:
    """Puts into `book` what is in force. `run` follows the file; `shared` is followed by the mode's exchanges."""

    def __init__(self, book: PolicyBook, path: Path, shared: Shared) -> None:
        self._book, self._path, self._shared = book, path, shared
        self._file = book.current
        self.stamp = _stamp(path)
        """Of the file as it was read last, whatever came of it."""
        shared.adopted = self._take_over
        self._take_over()

    @property
    def origin(self) -> str:
        """Who made the policies in force: `file` or `operator`."""
        return "file" if _parsed(self._shared.choice.fields) is None else "operator"

    def to_json(self) -> dict[str, Any]:
        """The policies in force, where they come from, and whether every replica has been told."""
        said = self._book.current.model_dump(mode="json", exclude_none=True)
        return {**said, "origin": self.origin, **self._shared.choice.to_json(), "shared": self._shared.shared}

    async def set(self, new: Policies | None, *, actor: str, reason: str | None) -> None:
        """In force on every replica; None gives the choice back to each replica's file."""
        said = None if new is None else new.model_dump(mode="json", exclude_none=True)
        details = {"origin": "file" if new is None else "operator", "segments": None if new is None else new.names}
        await self._shared.set({"policies": said}, actor=actor, reason=reason, details=details)

    async def run(self, poll_s: float = POLL_S) -> None:
        """Follow the file until cancelled. A file that does not fit is logged, and the last one that did stays."""
        while True:
            await asyncio.sleep(poll_s)
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self.stamp:
                continue
            self.stamp = stamp
            try:
                self._file = await asyncio.to_thread(policies.load, self._path)
            except PolicyError as error:
                log.error("policies_not_read", cause=str(error))
                continue
            self._take_over()
            log.info("policies_read", segments=self._file.names, in_force=self.origin == "file")

    def _take_over(self) -> None:
        self._book.replace(_parsed(self._shared.choice.fields) or self._file)


def _parsed(fields: dict[str, Any]) -> Policies | None:
    said = fields.get("policies")
    try:
        return None if said is None else policies.parse(said)
    except PolicyError:
        return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes with the file, also where it is replaced behind a link."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
