"""Calls about files that hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.harness.hung_file import hang, held
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import HungFileError
from tests.support.aio import asynchronous, eventually


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hung"
    path.touch()
    hang(path)
    yield path


def threads() -> int:
    return sum(thread.name == "disk-policies" for thread in threading.enumerate())


@asynchronous
async def test_a_file_that_hangs_is_given_up_and_read_again_once_it_answers(hung: Path) -> None:
    metrics = Metrics()
    lane, other = metrics.file_lane("policies", 0.05), metrics.file_lane("models", 20.0)
    for _ in range(3):
        with pytest.raises(HungFileError):
            await lane.run(hung.read_bytes)
        with pytest.raises(HungFileError):
            lane.run_now(hung.read_bytes)
    assert threads() == 1
    assert metrics.hanging_files() == ["policies"]
    assert await other.run(lambda: "read") == "read"
    with held(hung):
        pass

    async def answers() -> bool:
        return not metrics.hanging_files()

    await eventually(answers, within_s=20.0)
    lane = metrics.file_lane("policies", 20.0)
    assert await lane.run(lambda: "read") == "read"
    assert lane.run_now(lambda: "now") == "now"


@asynchronous
async def test_an_error_of_a_call_is_its_callers(tmp_path: Path) -> None:
    lane = Metrics().file_lane("policies", 20.0)
    with pytest.raises(FileNotFoundError):
        await lane.run((tmp_path / "none").read_bytes)
    with pytest.raises(FileNotFoundError):
        lane.run_now((tmp_path / "none").read_bytes)
