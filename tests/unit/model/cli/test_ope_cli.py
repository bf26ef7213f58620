"""`gpt4rec ope`, as a command."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from model.cli.ope import app
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of

POLICIES = """
segments: [{name: all, decoding: {strategy: temperature, temperature: 0.8}}]
default: all
"""


def test_a_log_that_cannot_say_ends_with_a_sentence_and_code_1(tmp_path: Path) -> None:
    rows = [
        {"list_id": f"L{i}", "subject": f"u:{i}", "time_ms": i, "items": ["x"], "segment": "all", "strategy": "greedy"}
        for i in range(5)
    ]
    LogFolder(tmp_path / "log").write("exposures", frame_of("exposures", rows), "x")
    (tmp_path / "policies.yaml").write_text(POLICIES)
    asked = ["--log", str(tmp_path / "log"), "--policies", str(tmp_path / "policies.yaml")]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 1 and "all 5 lists are deterministic" in shown.output.replace("\n", " ")
    written = CliRunner().invoke(app, [*asked, "--json"])
    assert written.exit_code == 1 and "deterministic" in json.loads(written.output)["segments"][0]["refused"]


def test_what_is_judged_must_be_said(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["--log", str(tmp_path)]).exit_code == 2
    bad = CliRunner().invoke(app, ["--log", str(tmp_path), "--policies", "x", "--reward", "joy"])
    assert bad.exit_code == 2
