"""The folder of the models, on a disk that hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.harness.hung_file import hang, held
from service.artifact.manifest import MANIFEST
from service.lifecycle.model_folders import ModelFolders
from service.process.disk_lane import DiskLane, HungFileError
from tests.support.aio import asynchronous


@asynchronous
async def test_while_the_disk_hangs_the_folders_found_before_are_listed(tmp_path: Path) -> None:
    model, hung, lane = tmp_path / "model", tmp_path / "hung", DiskLane("models", patience_s=20.0)
    _unreadable(model)
    folders = ModelFolders(tmp_path, lane)
    before = await folders.list()
    assert list(before) == ["model"]
    hang(hung)
    lane._patience_s = 0.05
    with pytest.raises(HungFileError):
        await lane.run(hung.read_bytes)
    with pytest.raises(HungFileError):
        await folders.list()
    assert await folders.list_or_known() == before
    with held(hung):
        pass


def _unreadable(folder: Path) -> None:
    folder.mkdir()
    (folder / MANIFEST).write_text("no manifest")
