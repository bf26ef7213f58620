"""Where the commands that measure leave their figures, in a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.common import results


def write_row(file: Path, criterion: str) -> None:
    """Records a figure. Here, where a process that is spawned for it imports little else."""
    results.record(file, results.row(criterion, 1.0, "×", "measure it"))


def keep_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of quality and payloads go to `folder` and come from it, for modules that call through `results`."""
    monkeypatch.setattr(results, "RESULTS", folder)
    monkeypatch.setattr(results, "QUALITY", folder / "quality.json")
    monkeypatch.setattr(results.save, "__kwdefaults__", {"command": "", "folder": folder})
    monkeypatch.setattr(results.load, "__defaults__", (folder,))
