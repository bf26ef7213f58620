"""`gpt4rec report online`, as a command."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from loadtests.loop.random_logs import random_log
from model.cli.report import app
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of

HOUR = 3_600_000


def test_the_report_is_shown_or_written_as_json(tmp_path: Path) -> None:
    made = random_log(1, events=60, subjects=8, start_ms=HOUR)
    log = LogFolder(tmp_path / "log")
    log.write("exposures", frame_of("exposures", made.exposures), "x")
    log.write("events", frame_of("events", made.events), "x")
    asked = ["online", "--log", log.url, "--until", "1970-01-01T09:00:00"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0 and "by position, per thousand lists" in shown.output
    written = CliRunner().invoke(app, [*asked, "--json", str(tmp_path / "report.json")])
    assert written.exit_code == 0 and "lists counted" in written.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["lists"]["served"] == 20
    assert {"value", "low", "high"} == set(report["groups"]["all"][0]["click_through"])


def test_a_folder_without_a_log_ends_in_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["online", "--log", str(tmp_path)])
    assert done.exit_code == 1 and "the log holds no exposures" in done.output
