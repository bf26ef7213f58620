"""docs/data.md shows every flag and message of `gpt4rec data`, and its examples run as they stand.

Comments that a reader does not see say what a fenced block is: `<!-- file: NAME -->` a file (packed where NAME ends in
.gz), `<!-- run -->` or `<!-- run: exit 1 -->` commands over the files above it, `<!-- output -->` what they print.
"""

from __future__ import annotations

import ast
import gzip
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model.cli.data import app
from model.data.columns import ITEM_ROLES, LOG_COLUMNS
from model.data.event_names import ALIASES
from model.data.formats import Format

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^<!-- (file|run|output)(?:: (.+?))? -->\n+```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def _section(heading: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"^#+ ", PAGE.split(f"\n{heading}", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_row_with_its_default(name: str) -> None:
    rows = dict(re.findall(r"^\| `(--[\w-]+)` (\|.*)$", _section(f"### `gpt4rec data {name}"), re.MULTILINE))
    flags = {option.opts[0]: option for option in COMMANDS[name].params if option.opts[0].startswith("--")}
    assert rows.keys() == {*flags, "--help"}
    for flag, option in flags.items():
        default = "required" if option.required else str(option.default or "")
        assert default in rows[flag], flag


def test_every_format_is_named_explained_and_has_an_example_that_is_run() -> None:
    runs = [words for kind, _, body in BLOCKS if kind == "run" for words in _commands(body)]
    for form in Format:
        assert f"`{form}`" in _section("### `gpt4rec data import")
        assert f"[`{form}`](#{form})" in _section("## Choose a format")
        assert f"\n### {form}\n" in PAGE
        assert any(str(form) in words for words in runs), form


def test_every_role_of_map_is_explained() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", _section("## Name the columns"), re.MULTILINE))
    assert rows == {*LOG_COLUMNS, *ITEM_ROLES}


def test_every_name_of_an_event_type_is_listed() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (`.*`) \|$", _section("## Event types"), re.MULTILINE))
    listed = {alias: event_type for event_type, names in rows.items() for alias in re.findall(r"`(\w+)`", names)}
    assert listed == ALIASES


def _commands(body: str) -> list[list[str]]:
    return [shlex.split(line) for line in body.replace("\\\n", " ").splitlines()]


def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    printed = ""
    for kind, named, body in BLOCKS:
        if kind == "file":
            path = tmp_path / named
            path.parent.mkdir(exist_ok=True, parents=True)
            assert not path.exists(), f"{named} is shown twice"
            path.write_bytes(gzip.compress(body.encode()) if named.endswith(".gz") else body.encode())
        elif kind == "run":
            printed = "".join(_run(words, int((named or "exit 0").split()[1])) for words in _commands(body))
        else:
            assert _lines(body) == _lines(printed)


def _run(words: list[str], exit_code: int) -> str:
    match words:
        case ["gpt4rec", "data", *arguments]:
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == exit_code, (words, result.output)
            return result.output
        case ["python", script]:
            runpy.run_path(script)
        case ["gzip", *packed]:
            assert all(Path(f"{name}.gz").exists() for name in packed)
        case _:
            raise AssertionError(f"no example may run {words}")
    return ""


def _lines(text: str) -> list[str]:
    """Without the steps that are named while they last."""
    return [line.rstrip() for line in text.strip().splitlines() if not line.endswith(" …")]


# What is called with a message, and the place of the message among the arguments.
SAY = {
    "DataError": 0,
    "DownloadError": 0,
    "TextError": 0,
    "ValueError": 0,
    "note": 0,
    "drop": 0,
    "echo": 0,
    "refuse": 3,
    "report_losses": 4,
}
MODULES = ("cli/data.py", "data/**/*.py", "texts/*.py")


def _messages() -> Iterator[str]:
    """The literal parts of everything that an import, its checks and `data like` can say."""
    for path in (path for pattern in MODULES for path in (ROOT / "model").glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if args and name in SAY:
                    yield from _literals(args[SAY[name]])
                case ast.FunctionDef(name="misuse"):
                    for step in ast.walk(node):
                        yield from _literals(step.value) if isinstance(step, ast.Return) else ()


def _literals(said: ast.expr | None) -> list[str]:
    parts = said.values if isinstance(said, ast.JoinedStr) else [said]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def test_every_message_is_explained() -> None:
    explained = " ".join(PAGE.split("\n## Messages", 1)[1].split())
    said = {" ".join(text.split()).strip(" :;(),") for text in _messages()}
    assert len(said) > 80
    assert not {text for text in said if sum(map(str.isalpha, text)) >= 6 and text not in explained}
