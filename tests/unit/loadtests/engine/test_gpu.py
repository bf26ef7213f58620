"""The checks of a GPU, run against the CPU provider on a tiny artefact; and what the command says without a card."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.engine import gpu
from service.engine.jobs import DecodedList


def listed(*items: int) -> DecodedList:
    return DecodedList(np.array(items, np.int64), np.zeros(len(items), np.float32), np.zeros(len(items), np.float32))


def test_places_of_the_longer_list_count() -> None:
    assert gpu.same_places([listed(1, 2, 3), listed(4)], [listed(1, 3, 2), listed(4, 5)]) == 2 / 5
    assert gpu.same_places([], []) == 0.0


def test_the_checks_run_and_hold_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_CALLS", 1)
    report = gpu.Report("cpu", time.monotonic() + 600.0)
    gpu.measure(report, tmp_path, [300], [1, 4], network="tiny", seconds=0.0)
    assert report.holds, report.checks
    assert {(check.dtype, check.what) for check in report.checks} == {
        (dtype, what) for dtype in gpu.DTYPES for what in ("placement", "parity")
    }
    assert [(one.dtype, one.batch) for one in report.times] == [(d, b) for d in gpu.DTYPES for b in (1, 4)]
    assert not report.left_out


def test_what_does_not_fit_into_the_time_is_named(tmp_path: Path) -> None:
    report = gpu.Report("cpu", time.monotonic())
    gpu.measure(report, tmp_path, [300], [1], network="tiny", seconds=0.0)
    assert report.left_out == ["300 items in float32", "300 items in float16"]
    assert not report.holds


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="needs a CPU's onnxruntime"
)
def test_without_a_card_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    found = CliRunner().invoke(_app(), ["--figures", str(tmp_path)])
    assert found.exit_code == 1
    assert "has no CUDAExecutionProvider" in found.output and "nothing was measured" in found.output
    assert results.load("gpu", tmp_path) is None


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(gpu.main)
    return app
