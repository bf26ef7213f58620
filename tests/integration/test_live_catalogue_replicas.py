"""Two replicas under load while items come, change and are disabled: the short form of the command."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from loadtests.common import results
from loadtests.harness.bench import Bench
from loadtests.shop import catalogue_criteria as criteria
from loadtests.shop.catalogue import run


def test_changes_under_load_reach_both_replicas_and_disabled_items_stay_away(
    random_artifact: Path, tmp_path: Path
) -> None:
    bench = Bench(random_artifact, None, "test", Console(quiet=True), tmp_path, quick=True, rows="shop.json")
    trials = run(bench, trials=2, pairs=1, block_s=1.5)
    assert all(trial.back == 0 and max(trial.new_s, trial.gone_s) < 30.0 for trial in trials)
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "shop.json")}
    assert rows[criteria.NEW]["value"] <= 2 and rows[criteria.UPDATES]["value"] > 0
