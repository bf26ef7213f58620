"""The command `gpt4rec` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.__main__ import COMMANDS


def gpt4rec(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120", **environment},
        check=False,
    )


def test_the_overview_lists_every_command_and_loads_none() -> None:
    done = gpt4rec("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert "torch" not in done.stderr
    assert "fastapi" not in done.stderr


def test_the_version_is_shown() -> None:
    assert gpt4rec("--version").stdout.strip()


@pytest.mark.parametrize(
    ("shell", "typed", "follows"),
    [
        ("bash", "gpt4rec tr", "train"),
        ("bash", "gpt4rec ops models roll", "rollback"),
        ("zsh", "gpt4rec ops fallback ", "get"),
        ("fish", "gpt4rec keys new --us", "--users"),
    ],
)
def test_a_shell_completes_commands_and_options(shell: str, typed: str, follows: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - (not typed.endswith(" ")))}
    asked = words if shell == "bash" else {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = gpt4rec(_GPT4REC_COMPLETE=f"complete_{shell}", **asked)
    assert done.returncode == 0 and follows in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("nope",), ("--nope",), ("serve", "--nope"), ("ops", "fallback", "set", "sideways", "--reason", "x")],
)
def test_bad_usage_exits_2(arguments: tuple[str, ...]) -> None:
    assert gpt4rec(*arguments).returncode == 2


def test_a_start_that_fails_names_its_cause_and_exits_1(tmp_path: Path) -> None:
    for arguments, environment, cause in [
        ((), {}, "no artefact"),
        ((), {"GPT4REC_DEADLNE_MS": "1"}, "GPT4REC_DEADLINE_MS"),
        ((), {"GPT4REC_OPS_TOKENS": "x"}, "GPT4REC_OPS_TOKENS"),
        (("--policies", str(tmp_path / "absent.yaml")), {}, "absent.yaml"),
        (("--artifact", str(tmp_path)), {}, str(tmp_path)),
        (("--host", "203.0.113.1"), {}, "cannot listen"),
        (("--port-file", str(tmp_path / "absent" / "port")), {}, "create the folder"),
    ]:
        done = gpt4rec("serve", "--port", "0", *arguments, **environment)
        assert done.returncode == 1, done.stderr
        assert cause in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_ops_without_a_service_exits_1() -> None:
    done = gpt4rec("ops", "audit", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no answer" in done.stderr
