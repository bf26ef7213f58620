"""No command can end in a traceback of the system's refusals: each runs under `service.cli.outermost`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())


def test_every_command_of_a_module_runs_under_the_outermost_layer() -> None:
    bare = []
    for room in ("service", "model", "export", "deploy", "loadtests"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="typer"), attr="run") | ast.Name(id="app")):
                        bare.append(str(path.relative_to(ROOT)))
    assert bare == ["service/cli/outermost.py"]
