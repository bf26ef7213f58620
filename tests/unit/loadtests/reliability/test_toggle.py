"""What the toggle's command makes of trials written by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.reliability import toggle


def trial(message: str, *reached_s: float | None, old: int = 0) -> dict[str, Any]:
    return {"message": message, "reached_s": list(reached_s), "old_afterwards": old}


def rows(folder: Path, *trials: dict[str, Any]) -> dict[str, dict[str, Any]]:
    bench = Bench(folder, None, "toggle", Console(quiet=True), folder, rows=results.RELIABILITY.name)
    toggle._report_trials(bench, trials)
    return {row["criterion"]: row for row in results.read_rows(folder / results.RELIABILITY.name)}


def test_a_trial_counts_by_the_slower_replica(tmp_path: Path) -> None:
    found = rows(tmp_path, trial("sent", 0.01, 0.02), trial("lost", 0.6, 0.005), trial("sent", 0.03, 0.03))
    assert found["3 toggle reaches both replicas"]["value"] == 3
    assert found["3 toggle p50"]["value"] == 0.03
    assert found["3 toggle max"]["value"] == 0.6
    assert found["3 toggle max, message lost, by the poll"]["value"] == 0.6
    assert all(row["holds"] for row in found.values())


@pytest.mark.parametrize("late", [None, 1.2], ids=["never reached", "too late"])
def test_a_trial_that_is_late_fails_the_row(late: float | None, tmp_path: Path) -> None:
    found = rows(tmp_path, trial("sent", 0.01, 0.02), trial("sent", 0.01, late))
    assert found["3 toggle reaches both replicas"]["value"] == 1
    assert not found["3 toggle reaches both replicas"]["holds"]
    assert not found["3 toggle max"]["holds"]


def test_a_list_by_the_old_mode_after_the_new_one_fails_its_row(tmp_path: Path) -> None:
    found = rows(tmp_path, trial("sent", 0.01, 0.02, old=1))
    assert not found["3 lists by the old mode after the new one"]["holds"]


def test_a_quick_run_does_not_write_over_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.reliability.toggle", "--artifact", str(tmp_path), "--quick"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--out" in done.stderr
