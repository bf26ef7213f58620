"""Writes of small files that another process may be reading."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def write_aside(path: Path, content: bytes) -> None:
    """Writes a file beside `path` and renames it, so that a reader never sees half of it.

    Several processes may write the same file: each uses a temporary name of its own.

    Args:
        path: The file to replace.
        content: Its new content.

    Raises:
        OSError: The file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)


def save_aside(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array in numpy's own format, as `write_aside` does.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_aside(path, content.getvalue())
