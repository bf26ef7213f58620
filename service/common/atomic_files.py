"""Small files that another process may be reading."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def write_aside(path: Path, content: bytes) -> None:
    """Written aside, then renamed, so that a reader never sees half of it. Several processes may write the same file:
    each does so under a name of its own. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)


def save_aside(path: Path, array: npt.NDArray[Any]) -> None:
    """The same for an array, in numpy's own format. Raises OSError."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_aside(path, content.getvalue())
