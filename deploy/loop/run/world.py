"""What the steps work with, and how a step says that it cannot go on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.loop.run.gpt4rec import Done, Runner
from deploy.loop.run.journal import Cycle, Journal
from deploy.loop.run.service import Service
from model.errors import RunError
from service.common import logs
from service.common.errors import SettingsError
from service.settings.loop_settings import LoopSettings

log = logs.get(__name__)


class EndedError(Exception):
    """The cycle has ended before its last step.

    Attributes:
        outcome: How.
        reason: Why, in a sentence.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome, self.reason = outcome, reason


class StepError(RunError):
    """A step failed, and may be tried again."""


def _nothing(_: str | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class World:
    """What the steps work with.

    Attributes:
        settings: Of the loop.
        journal: Where what they bring is written.
        runner: Runs the commands.
        service: The service.
        clock: Unix seconds.
        pause: Waits for some seconds.
        entered: Called with the step that begins, and with None at the end.
    """

    settings: LoopSettings
    journal: Journal
    runner: Runner
    service: Service
    clock: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    entered: Callable[[str | None], None] = _nothing

    @property
    def artifacts(self) -> Path:
        """Folder of artefacts that the service serves a version of."""
        return Path(self.settings.loop_artifacts)

    async def command(self, cycle: Cycle, step: str, arguments: list[str], *, timeout_s: float | None = None) -> Done:
        """Runs a command of a step; its messages are kept in the folder of the cycle."""
        log.info("command", cycle=cycle.id, step=step, command=f"gpt4rec {shlex.join(arguments)}")
        return await self.runner.run(
            arguments, self.journal.folder(cycle) / f"{step}.log", timeout_s=timeout_s
        )  # fmt: skip


def report_of(done: Done) -> dict[str, Any]:
    """Returns the JSON object that a command wrote.

    Raises:
        StepError: It failed, or wrote none.
    """
    require(done)
    try:
        found = json.loads(done.output)
    except ValueError as error:
        raise StepError(f"`{done.command}` wrote no JSON: {error}", where=str(done.messages)) from error
    if not isinstance(found, dict):
        raise StepError(f"`{done.command}` wrote no JSON object", where=str(done.messages))
    return found


def require(done: Done) -> None:
    """Checks that a command ended well.

    Raises:
        StepError: It did not; the error has the end of its messages.
    """
    if done.code:
        said = done.tail()
        raise StepError(
            f"`{done.command}` ended with exit code {done.code}" + (f":\n{said}" if said else ""),
            where=str(done.messages),
        )


def arguments(text: str, name: str) -> list[str]:
    """Returns the arguments that a setting holds.

    Raises:
        SettingsError: Its quotes do not close.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"GPT4REC_{name.upper()}: {error}") from error
