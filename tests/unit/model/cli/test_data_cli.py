from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.cli.data import app
from model.data.dataset import Dataset
from tests.support.data_builders import tiny_dataset

LOG = "user_id,item_id,timestamp\nu,a,1700000000\nu,b,1700000001\nu,b,1700000001\n"
run = CliRunner().invoke


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_import_writes_a_data_set_and_prints_its_report(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "data"
    result = run(app, ["import", str(log), "--format", "csv", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert Dataset.load(out).report["events"] == 2
    for said in ("users", "items", "density", "2023-11-14", "1: exact duplicates"):
        assert said in result.stdout


def test_json_reports_what_the_folder_holds(log: Path, tmp_path: Path) -> None:
    result = run(app, ["import", str(log), "--format", "csv", "--out", str(tmp_path / "d"), "--json"])
    said, data = json.loads(result.stdout), Dataset.load(tmp_path / "d")
    assert said["fingerprint"] == data.fingerprint
    assert said["report"] == data.report
    assert said["has_time"] is True


def test_bad_input_exits_with_1_says_why_and_keeps_the_earlier_data_set(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    tiny_dataset().save(out)
    log.write_text(LOG + "u,c,1700000000000\n")
    result = run(app, ["import", str(log), "--format", "csv", "--out", str(out)])
    assert result.exit_code == 1
    assert "mixes units" in result.stderr
    assert "line 5" in result.stderr
    assert "fix:" in result.stderr
    assert result.stdout == ""
    assert Dataset.load(out).fingerprint == tiny_dataset().fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log.csv"]


def test_a_folder_that_is_no_data_set_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = run(app, ["import", "/nowhere.csv", "--format", "csv", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "already there" in result.stderr


def test_a_source_that_is_not_there_exits_with_1(tmp_path: Path) -> None:
    for form in ("recbole", "sequences", "csv", "parquet", "complete-journey"):
        result = run(app, ["import", str(tmp_path / "no"), "--format", form, "--out", str(tmp_path / "d")])
        assert result.exit_code == 1, form
        assert "there is no such" in result.stderr
        assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "x", "--out", "d"],
        ["import", "x", "--format", "xml", "--out", "d"],
        ["import", "x", "--format", "csv"],
        ["import", "x", "--format", "csv", "--out", "d", "--map", "who=x"],
        ["import", "x", "--format", "csv", "--out", "d", "--times", "t.csv"],
        ["movielens-100k"],
        ["unknown"],
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    assert run(app, arguments).exit_code == 2


def test_movielens_with_a_wrong_wheel_exits_with_1_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "recbole.whl").write_bytes(b"nonsense")
    result = run(app, ["movielens-100k", "--wheel", str(tmp_path / "recbole.whl"), "--out", str(tmp_path / "d")])
    assert result.exit_code == 1
    assert "not the known wheel" in result.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("command", [[], ["import"], ["movielens-100k"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = run(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout
