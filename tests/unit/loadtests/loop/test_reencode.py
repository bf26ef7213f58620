"""The command that says what encoding everybody anew costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.loop import criteria, reencode
from tests.support.data_builders import tiny_dataset


def test_the_row_is_that_of_a_million_users_on_one_thread(
    random_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "loop.json"
    monkeypatch.setattr(results, "LOOP", rows)
    tiny_dataset(users=5).save(tmp_path / "data")
    app = typer.Typer()
    app.command()(reencode.main)
    asked = ["--artifact", str(random_artifact), "--data", str(tmp_path / "data"), "--seconds", "0.1", "--record"]
    refused = CliRunner().invoke(app, [*asked, "--threads", "2"])
    assert refused.exit_code == 2
    assert not rows.exists()
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    [row] = json.loads(rows.read_text())
    assert (row["criterion"], row["unit"], row["limit"]) == (criteria.REENCODE, "hours", None)
    assert row["value"] > 0
