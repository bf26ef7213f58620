"""The command that tries faults: one of them, on real processes."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from loadtests.chaos.__main__ import keep, main, tried
from loadtests.chaos.redis import FAULTS
from loadtests.common import results


def test_a_fault_is_tried_and_its_entry_and_row_are_kept(random_artifact: Path, tmp_path: Path) -> None:
    """What it promises of correctness is asked here; how soon answers come is not, since the machine may be busy."""
    fault = next(one for one in FAULTS if one.name == "redis half-open")
    out = tmp_path / "results"
    entry = tried(fault, random_artifact, quick=True)
    assert set(entry["errors"]) <= {"/events 503"}
    assert (entry["wrong"], entry["events"]["lost"], entry["events"]["twice"]) == (0, 0, 0)
    assert entry["events"]["acknowledged"] > 100 and entry["answers"]["full"] > 40

    keep(fault, {**entry, "broken": ["something"]}, out)
    keep(fault, {**entry, "broken": []}, out)
    kept = results.load("faults", out)
    assert kept is not None and kept["faults"] == {fault.name: {**entry, "broken": []}}
    rows = results.read_rows(out / "reliability.json")
    assert [(row["criterion"], row["value"], row["holds"]) for row in rows] == [(f"2 {fault.name}", 0.0, True)]


def test_a_fault_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["no such fault", "--artifact", str(tmp_path)])
    assert result.exit_code == 2
    assert "redis kill -9" in result.output
