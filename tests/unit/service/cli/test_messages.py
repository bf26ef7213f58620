"""Everything that goes wrong is said in the same way."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.__main__ import GROUP
from service.cli.messages import complaint

AWAY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "import", "absent.csv", "--format", "csv", "--out", "d"],
        ["data", "like", "--data", "absent", "--run", "absent", "--items", "absent.csv", "--out", "o"],
        ["train", "--data", "absent", "--out", "run"],
        ["evaluate", "--data", "absent", "--run", "absent"],
        ["evaluate", "--data", "absent", "--artifact", "absent"],
        ["export", "--run", "absent", "--out", "artifacts"],
        ["export", "--baseline", "popularity", "--data", "absent", "--out", "artifacts"],
        ["ops", "audit", "--url", AWAY],
        ["ops", "models", "rollback", "--url", AWAY],
    ],
    ids=" ".join,
)
def test_every_command_has_one_prefix_for_what_went_wrong(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [entry] = metadata.entry_points(group=GROUP, name=arguments[0])
    done = CliRunner().invoke(entry.load(), arguments[1:])
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if not line.endswith("…")]  # the names of slow steps
    assert lines[0].startswith("gpt4rec: ")
    assert done.stdout == ""


def test_lines_stay_lines_and_escape_sequences_are_shown() -> None:
    assert complaint("no \x1b[2J\n  fix: y", "load") == r"load: no \x1b[2J" + "\n  fix: y"
