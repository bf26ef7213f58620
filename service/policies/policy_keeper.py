"""Keeps the policies in force: those that operators set for every replica, otherwise those of the policies file."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from service.common import logs
from service.common.errors import PolicyError
from service.common.state_log import StateLog
from service.common.watched_file import WatchedFile
from service.coordination.shared_choice import SharedChoice
from service.policies import policies
from service.policies.policies import Policies, PolicyBook
from service.process.disk_lane import DiskLane, HungFileError

log = logs.get(__name__)

POLL_S = 2.0


def usable(fields: dict[str, Any]) -> bool:
    """Returns whether this release can use the shared value: valid policies, or none at all."""
    return _parsed(fields) is not None or fields.get("policies", ...) is None


class PolicyKeeper:
    """Puts the policies in force into `book`. `run` follows the file; the exchanges with Redis follow `shared`.

    Attributes:
        watched: The policies file. The version in use is the one that was read last, even if it was not valid.
    """

    def __init__(self, book: PolicyBook, watched: WatchedFile, lane: DiskLane, shared: SharedChoice) -> None:
        self._book, self._lane, self._shared = book, lane, shared
        self._file = book.current
        self.watched = watched
        self._state = StateLog("policies", "file")
        shared.subscribe(self._take_over)
        self._take_over()

    @property
    def origin(self) -> str:
        """Where the policies in force come from: `file` or `operator`."""
        return "file" if _parsed(self._shared.choice.fields) is None else "operator"

    def to_json(self) -> dict[str, Any]:
        """Returns the policies in force, where they come from, and whether every replica can see them."""
        in_force = self._book.current.model_dump(mode="json", exclude_none=True)
        return {**in_force, "origin": self.origin, **self._shared.choice.to_json(), "shared": self._shared.shared}

    async def set(self, new: Policies | None, *, actor: str, reason: str | None) -> None:
        """Puts policies in force on every replica.

        Args:
            new: The policies; None returns every replica to its own file.
            actor: Name of the operator, for the audit.
            reason: Why, for the audit.
        """
        body = None if new is None else new.model_dump(mode="json", exclude_none=True)
        details = {"origin": "file" if new is None else "operator", "segments": None if new is None else new.names}
        await self._shared.set({"policies": body}, actor=actor, reason=reason, details=details)

    async def run(self, poll_s: float = POLL_S) -> None:
        """Follows the file until cancelled. While it is not valid, or hangs, the last valid one is kept."""
        while True:
            await asyncio.sleep(poll_s)
            with contextlib.suppress(HungFileError):
                await self._look()

    async def _look(self) -> None:
        if not await self._lane.run(self.watched.changed):
            return
        try:
            self._file = await self._lane.run(lambda: policies.load(self.watched.path))
        except PolicyError as error:
            self.watched.accept()
            log.error("policies_not_read", cause=str(error))
            return
        self.watched.accept()
        self._take_over()
        log.info("policies_read", segments=self._file.names, in_force=self.origin == "file")

    def _take_over(self) -> None:
        choice = self._shared.choice
        set_by_operator = _parsed(choice.fields)
        self._book.replace(set_by_operator or self._file)
        state = "file" if set_by_operator is None else f"operator, version {choice.version}"
        self._state.saw(state, actor=choice.actor)


def _parsed(fields: dict[str, Any]) -> Policies | None:
    body = fields.get("policies")
    try:
        return None if body is None else policies.parse(body)
    except PolicyError:
        return None
