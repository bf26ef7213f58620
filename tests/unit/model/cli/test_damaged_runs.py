"""A damaged file of a run is named, with the way to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.cli.train_evaluate import train_app
from model.errors import RunError
from model.training.run_folder import Run


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"nope": 1}', '{"seed": "x"}', "[" * 100_000])
def test_a_damaged_configuration_is_named_when_a_run_is_resumed_or_opened(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "config.json").write_text(damaged, encoding="utf-8")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    result = CliRunner().invoke(train_app, ["--data", str(tmp_path), "--out", str(tmp_path), "--resume"])
    assert result.exit_code == 1
    assert "config.json of the run cannot be read" in result.stderr
    assert "fix:" in result.stderr
    with pytest.raises(RunError, match=r"config\.json of the run cannot be read") as caught:
        Run.open(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")
