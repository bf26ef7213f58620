"""The commands and programs of docs/integrate.md, as they stand there, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deployment import DEPLOY, ROOT

_PAGE = (ROOT / "docs" / "integrate.md").read_text("utf-8")
# What is installed or stays running is done by hand.
_BLOCK = re.compile(r"(?ms)^(<!-- by hand -->\n)?```(sh|python|js)\n(.*?)^```")


def _program(language: str) -> str:
    """The page's blocks in a language, with the address and the keys of this service."""
    blocks = [code for by_hand, kind, code in _BLOCK.findall(_PAGE) if kind == language and not by_hand]
    key = os.environ["GPT4REC_OPERATOR_KEY"]
    text = "\n".join(blocks).replace("http://127.0.0.1:8000", os.environ["GPT4REC_URL"])
    # Whoever tests must not wait as little as a page does.
    text = re.sub(r"timeout_s=[\d.]+", "timeout_s=30.0", re.sub(r"timeoutMs: \d+", "timeoutMs: 30000", text))
    return text.replace("page-key", key).replace("shop-key", key)


def _run(*command: str, folder: Path) -> str:
    path = str(DEPLOY / "clients" / "python")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    said = _run("bash", "-euxc", _program("sh"), folder=tmp_path)
    assert '"accepted":1' in said
    assert '"merged":1' in said
    assert '"history":[{' in said
    assert re.search(r'"deleted":[1-9]', said)


def test_the_python_program_of_the_guide_runs(tmp_path: Path) -> None:
    said = _run(sys.executable, "-W", "error", "-c", _program("python"), folder=tmp_path)
    lines = said.splitlines()
    assert lines[0].startswith("1 ")
    assert lines[9:11] in (["{'top': 'bit'}", "['created', 'deleted']"], ["{'top': 'held'}", "['created', 'deleted']"])


def test_the_javascript_program_of_the_guide_runs(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "gpt4rec-client").symlink_to(DEPLOY / "clients" / "typescript")
    (tmp_path / "guide.mjs").write_text(_program("js"), "utf-8")
    assert _run("node", "guide.mjs", folder=tmp_path).rstrip().endswith("\n8")


@pytest.mark.parametrize("language", ["python", "js"])
def test_both_programs_of_the_guide_are_found(language: str) -> None:
    assert "recommend(" in _program(language)
