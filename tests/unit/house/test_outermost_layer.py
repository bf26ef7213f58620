"""No command can end in a traceback of the system's refusals: each runs under `service.cli.outermost`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())


def test_every_command_of_a_module_runs_under_the_outermost_layer() -> None:
    rooms = [ROOT / room for room in ("service", "model", "export", "deploy", "loadtests")]
    bare = [
        str(path.relative_to(ROOT))
        for path in (path for room in rooms for path in room.rglob("*.py"))
        if re.search(r"^\s+(typer\.run|app)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert bare == ["service/cli/outermost.py"]
