"""The command for drift finds none in quiet days and each of the shifts within an hour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.loop import criteria, drift


def test_shifts_are_told_within_their_hour_and_quiet_days_are_quiet(
    tiny_baseline: Callable[[str], Path], tiny_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "LOOP", tmp_path / "loop.json")
    monkeypatch.setattr(criteria, "QUIET_DAYS", 1)
    app = typer.Typer()
    app.command()(drift.main)
    command = ["--artifact", str(tiny_baseline("item_cf")), "--data", str(tiny_log)]
    done = CliRunner().invoke(app, [*command, "--days", "1", "--visits", "200", "--record"])
    assert done.exit_code == 0, done.output
    rows = {row["criterion"]: row["value"] for row in results.read_rows(results.LOOP)}
    assert rows[criteria.DRIFT_QUIET] == 0
    assert [rows[name] for name in drift.SHIFTS.values()] == [1, 1, 1]
