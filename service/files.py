"""Small files that another process may be reading."""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, content: bytes) -> None:
    """Written aside, then renamed, so that a reader never sees half of it. Several processes may write the same file:
    each does so under a name of its own. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)
