"""The README's first command, as a process: everything from the download to the forced fallback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.demo import app

pytestmark = pytest.mark.timeout(400)


def demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "demo",
        "--once",
        "--home",
        str(home),
        "--minutes",
        "0.05",
        *arguments,
    ]
    environment = os.environ | {"COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, timeout=380, env=environment, check=False)


@pytest.mark.network
def test_demo_goes_from_raw_data_to_served_lists_and_reuses_what_is_still_valid(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    first = demo(home)
    assert first.returncode == 0, first.stdout + first.stderr
    for segment in ("new", "active", "conservative", "explorer"):
        assert f"segment {segment} ·" in first.stdout
    assert "source gpt4rec (full)" in first.stdout
    assert "source item_cf (forced)" in first.stdout
    assert "recall@10" in first.stdout
    after = first.stdout.partition("ready after")[2]
    addresses = re.findall(r"http://\S+", after)
    assert addresses[0].endswith("/playground"), "the first thing to open"

    runs = sorted((home / "runs").glob("*/checkpoint.safetensors"))
    written = [run.stat().st_mtime_ns for run in runs]
    second = demo(home)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "trained before" in second.stdout
    assert "1/5 data: MovieLens-100K is here already" in second.stdout
    assert [run.stat().st_mtime_ns for run in runs] == written

    assert CliRunner().invoke(app, ["--once", "--home", str(home), "--seed", "x"]).exit_code == 2
