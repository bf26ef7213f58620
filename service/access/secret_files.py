"""Follows the files that secrets come from, so that keys are added, withdrawn and replaced without a restart.

Every file is checked once a second by its stamp (`service.common.watched_file`). A missing or malformed file changes
nothing: the previous secrets stay in force, and the log has the cause. An empty file of API keys changes nothing
either, because without keys the API would be open; an empty file of ops tokens withdraws all of them.

Files that cannot be read (missing, or on a disk that hangs) may withdraw a secret without our knowing it. So the
secrets of such a file are trusted for a while only (`GPT4REC_SECRET_TRUST_S`); see `service.access.keys`. Each file is
followed by itself: one that hangs does not hold up the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import SettingsError
from service.common.watched_file import WatchedFile
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import DiskLane, HungFileError

log = logs.get(__name__)

LOOK_EVERY_S = 1.0
# Room for thousands of entries; a wrong path must not fill the memory.
_MOST_BYTES = 1 << 20


@dataclass(slots=True)
class SecretFile:
    """One file of secrets and what happens with its content.

    Attributes:
        setting: Name of the setting, for the log.
        path: The file.
        apply: Puts the text of the file in force; raises SettingsError for text that cannot be used.
        empty_allowed: Whether an empty file withdraws all secrets; otherwise it is refused.
        trust: Told whether the secrets can be trusted, again and again.
        trust_s: How long they are trusted when the file cannot be read.
        clock: Monotonic seconds.
    """

    setting: str
    path: Path
    apply: Callable[[SecretStr], None]
    empty_allowed: bool
    trust: Callable[[bool], None] = lambda _: None
    trust_s: float = 300.0
    clock: Clock = time.monotonic
    _known_at: float = field(init=False)
    _trusted: bool = field(default=True, init=False)
    _watched: WatchedFile = field(init=False)
    _applied_once: bool = field(default=False, init=False)
    _cause: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._watched = WatchedFile(self.path)
        self._known_at = self.clock()

    def look(self) -> None:
        """Applies the file if it has changed since it was last applied.

        A refused file is tried again every time: the cause may be another file, or permissions mended in the meantime.
        """
        if not self._watched.changed():
            self._known_at = self.clock()
            return
        try:
            text = self._read()
            if not text and not self.empty_allowed:
                raise SettingsError(f"{self.setting}: the file is empty")
            self.apply(SecretStr(text))
        except SettingsError as error:
            self._refused(str(error))
            return
        if self._applied_once or self._cause:
            log.info("secrets_changed", setting=self.setting)
        self._watched.accept()
        self._applied_once, self._cause = True, ""

    def judge(self) -> None:
        """Says whether the secrets in force can be trusted: their file was read, or is unread for a short time only."""
        unread_s = self.clock() - self._known_at
        trusted = unread_s <= self.trust_s
        if trusted != self._trusted:
            event = "secrets_trusted" if trusted else "secrets_not_trusted"
            log.warning(event, setting=self.setting, unread_s=round(unread_s, 1))
        self._trusted = trusted
        self.trust(trusted)

    def _refused(self, cause: str) -> None:
        if cause != self._cause:
            log.error("secrets_refused", setting=self.setting, cause=cause)
        self._watched.forget()
        self._cause = cause

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise SettingsError(f"{self.setting}: cannot read the file ({type(error).__name__})") from error
        self._known_at = self.clock()
        if len(raw) > _MOST_BYTES:
            raise SettingsError(f"{self.setting}: the file is larger than {_MOST_BYTES} bytes")
        try:
            return raw.decode().strip()
        except UnicodeDecodeError:
            raise SettingsError(f"{self.setting}: the file is not UTF-8") from None


async def follow(files: Sequence[SecretFile], metrics: Metrics, every_s: float = LOOK_EVERY_S) -> None:
    """Checks the files every `every_s` seconds until cancelled."""
    async with asyncio.TaskGroup() as group:
        for file in files:
            group.create_task(_follow(file, metrics.file_lane(file.setting), every_s))


async def _follow(file: SecretFile, lane: DiskLane, every_s: float) -> None:
    while True:
        try:
            await lane.run(file.look)
        except HungFileError:
            pass  # the lane has said so
        except Exception as error:
            # One file must not end the loops of the others.
            log.error("secrets_not_read", setting=file.setting, **logs.where(error))
        file.judge()
        await asyncio.sleep(every_s)
