"""One loop at a time, and no command of one that died beside it.

Two files of the work folder are locked by the kernel, which releases a lock when the last process that has the file
open is gone, however it ended. `lock` belongs to the loop alone. `commands.lock` is open in the commands that it runs,
too, so that it stays locked while one of a killed loop still runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import RunError
from service.common.atomic_files import naming

LOCK, COMMANDS = "lock", "commands.lock"


class LockedError(RunError):
    """Another loop has the work folder."""


@contextmanager
def sole(work: Path) -> Iterator[None]:
    """Holds the work folder.

    Raises:
        LockedError: Another loop has it.
    """
    with _opened(work / LOCK) as number:
        if not _taken(number):
            raise LockedError(
                f"another loop has this work folder ({holder(work) or 'its process is unknown'})",
                where=str(work),
                fix="let it work, or stop it; `gpt4rec loop status` says what it does",
            )
        os.ftruncate(number, 0)
        os.pwrite(number, b"process %d\n" % os.getpid(), 0)
        try:
            yield
        finally:
            os.ftruncate(number, 0)


def _taken(number: int) -> bool:
    """Takes the lock; `holder` may have it for a moment."""
    for pause_s in (0.01, 0.05, 0.25, None):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if pause_s is not None:
            time.sleep(pause_s)
    return False


def holder(work: Path) -> str | None:
    """Returns who has the work folder, such as `process 17`; None if nobody has."""
    try:
        number = os.open(work / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(number, 100, 0).decode(errors="replace").strip() or "a process"
    finally:
        os.close(number)
    return None


class Commands:
    """The lock that commands share with the loop that started them.

    Attributes:
        number: The open file, to be left open in commands.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def free(self) -> bool:
        """Returns whether no command of an earlier loop runs any more; from then on it is ours."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


@contextmanager
def commands(work: Path) -> Iterator[Commands]:
    """Opens the lock of the commands."""
    with _opened(work / COMMANDS) as number:
        yield Commands(number)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield number
    finally:
        os.close(number)
