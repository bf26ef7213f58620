"""`--json` means the same in every command."""

from __future__ import annotations

import json
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from service.cli.__main__ import GROUP
from service.cli.json_report import AsJson, JsonFile, check_target, to_stdout, write_report

LOADTESTS = ("loadtests.load.__main__", "loadtests.load.wrk", "loadtests.engine.bench")


def commands(command: Any, name: str) -> list[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(name, command)]
    return [one for sub, below in inner.items() for one in commands(below, f"{name} {sub}")]


def options_of(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


def every_command() -> list[tuple[str, Any]]:
    found = [
        one
        for entry in metadata.entry_points(group=GROUP)
        for one in commands(get_command(entry.load()), f"gpt4rec {entry.name}")
    ]
    for name in LOADTESTS:
        app = typer.Typer()
        app.command()(import_module(name).main)
        found.append((name, get_command(app)))
    return found


def test_it_is_a_flag_with_one_meaning_everywhere() -> None:
    options = {
        name: option for name, command in every_command() for option in options_of(command) if "--json" in option.opts
    }
    assert len(options) > 12
    assert {option.is_flag for option in options.values()} == {True}
    assert {option.help for option in options.values()} == {"Print the report as one JSON object."}


def test_every_command_and_every_option_says_what_it_is_for() -> None:
    found = every_command()
    assert len(found) > 15
    for name, command in found:
        assert command.help, name
        assert options_of(command), name
        assert [option.name for option in options_of(command) if not option.help] == [], name


app = typer.Typer()


@app.command()
def report(as_json: AsJson = False, json_file: JsonFile = None) -> None:
    check_target(as_json, json_file)
    if not to_stdout(as_json, json_file):
        typer.echo("a table")
    write_report({"title": "été"}, as_json, json_file)


def test_it_prints_one_object_or_writes_the_file_behind_it(tmp_path: Path) -> None:
    run = CliRunner()
    assert run.invoke(app, []).stdout == "a table\n"
    for arguments in (["--json"], ["--json", "-"]):
        assert json.loads(run.invoke(app, arguments).stdout) == {"title": "été"}
    file = tmp_path / "report.json"
    assert run.invoke(app, ["--json", str(file)]).stdout == "a table\n"
    assert json.loads(file.read_text("utf-8")) == {"title": "été"}


@pytest.mark.parametrize("arguments", [["report.json"], ["--json", "no/such/folder/report.json"]])
def test_a_file_that_cannot_be_meant_is_refused_before_the_work(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
