"""The folder in which an import keeps what it has done, so that it goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from service.common.atomic_files import write_aside

_PLAN = "plan"


class WorkFolder:
    """A folder of intermediate files. A step counts as done once its record is there."""

    def __init__(self, path: Path, told: str) -> None:
        """Opens the folder; what another import left in it is removed.

        Args:
            path: Where it lies.
            told: Everything that the result depends on.
        """
        self.path = path
        signature = hashlib.sha256(told.encode()).hexdigest()
        if self._read(_PLAN) != {"signature": signature}:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            self.finish(_PLAN, {"signature": signature})

    def done(self, step: str) -> Any:
        """Returns the record of a step, None if it is not done."""
        return self._read(step)

    def finish(self, step: str, told: Any) -> None:
        """Writes the record of a step, after its files."""
        write_aside(self.path / f"{step}.json", json.dumps(told).encode())

    def folder(self, name: str) -> Path:
        """Returns a folder inside, which is made."""
        inside = self.path / name
        inside.mkdir(parents=True, exist_ok=True)
        return inside

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, step: str) -> Any:
        try:
            return json.loads((self.path / f"{step}.json").read_bytes())
        except (OSError, ValueError):
            return None
