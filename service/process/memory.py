"""The memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path


def resident_bytes() -> int:
    """Returns the resident bytes of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def return_freed() -> None:
    """Gives memory that was freed back to the system, where the C library keeps it for later and can be asked.

    Takes some milliseconds: not for the event loop.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
