"""Runs the other commands, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# A command that does not end after SIGTERM is killed; what it writes is whole or not there.
_STOP_S = 10.0
_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended.

    Attributes:
        command: What was run, as one would type it.
        code: Its exit code; None if it was stopped because its time was over.
        output: What it wrote to standard output.
        messages: File of what it wrote to standard error.
    """

    command: str
    code: int | None
    output: str
    messages: Path

    def tail(self) -> str:
        """Returns the end of its messages."""
        with contextlib.suppress(OSError):
            return self.messages.read_bytes()[-_TAIL_BYTES:].decode("utf-8", errors="replace").strip()
        return ""


class Runner(Protocol):
    """Runs `gpt4rec` commands."""

    async def run(self, arguments: Sequence[str], messages: Path, *, timeout_s: float | None = None) -> Done:
        """Runs a command to its end.

        Args:
            arguments: Of `gpt4rec`.
            messages: File that its messages are appended to.
            timeout_s: Time after which it is stopped; None for as long as it takes.
        """


class Processes:
    """Runs commands as children, which end with a stop of the loop.

    Args:
        keep_open: An open file that every command inherits.
    """

    def __init__(self, keep_open: int) -> None:
        self._keep_open = keep_open

    async def run(self, arguments: Sequence[str], messages: Path, *, timeout_s: float | None = None) -> Done:
        """Runs a command to its end; see `Runner`."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        messages.parent.mkdir(parents=True, exist_ok=True)
        with messages.open("ab") as stderr:
            stderr.write(f"$ gpt4rec {' '.join(arguments)}\n".encode())
            stderr.flush()
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                pass_fds=(self._keep_open,), start_new_session=True,
            )  # fmt: skip
        code: int | None = None
        output = b""
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await child.communicate()
            code = child.returncode
        except TimeoutError:
            await _end(child)
        except asyncio.CancelledError:
            await asyncio.shield(_end(child))
            raise
        return Done(f"gpt4rec {' '.join(arguments)}", code, output.decode("utf-8", errors="replace"), messages)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Ends a command: asks first, then by force."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await child.wait()
                return
        child.kill()
    await child.wait()
