"""A file that hangs: a named pipe without a writer. Who reads it waits, as on a mount without its server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 30.0


def hang(path: Path) -> None:
    """Puts a file that hangs in the place of another one."""
    aside = path.with_name(f"{path.name}.hung")
    os.mkfifo(aside)
    aside.replace(path)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Waits until somebody reads the file, and lets them wait until the body ends. Then they read nothing.

    Raises:
        TimeoutError: Nobody reads it.
    """
    until = time.monotonic() + WAIT_S
    while (writer := _writer(path)) is None:
        if time.monotonic() > until:
            raise TimeoutError("nobody reads the file")
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(writer)


def _writer(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # no reader
        return None
