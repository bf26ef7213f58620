"""`gpt4rec ops items`: the catalogue of a running service from a shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from service.cli.json_report import AsJson
from service.cli.messages import complain
from service.cli.ops_call import LOCAL, Token, Url, call, show
from service.cli.ops_text import table
from service.common.printable import printable

app = typer.Typer(no_args_is_help=True, help="Items: list, search, get, put, patch, disable, enable, delete, import.")

ItemId = Annotated[str, typer.Argument(help="Id of the item.")]
Fields = Annotated[str, typer.Argument(help='Fields as a JSON object, e.g. \'{"title": "…", "price": 19.9}\'.')]
IfVersion = Annotated[int | None, typer.Option(help="Change it only if it has this version; 0: if nothing is stored.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="Most items to show.")]

# Lines that one request carries. 1,000 short ones stay far below the largest body.
LINES = 1000
_IMPORT_S = 60.0


@app.command("list")
def list_items(
    limit: Limit = 50,
    cursor: Annotated[str | None, typer.Option(help="The cursor of the page before.")] = None,
    url: Url = LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Lists items, those that are stored over HTTP first."""
    asked = {"limit": limit, **({"cursor": cursor} if cursor else {})}
    show(call("GET", f"/items?{urlencode(asked)}", url, token), as_json, items_lines)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="Words of the title.")],
    limit: Limit = 20,
    url: Url = LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Finds items by words of their titles; typos and beginnings count."""
    show(call("GET", f"/items?{urlencode({'q': query, 'limit': limit})}", url, token), as_json, items_lines)


@app.command()
def get(item_id: ItemId, url: Url = LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Shows one item."""
    show(call("GET", path_of(item_id), url, token), as_json, item_lines)


@app.command()
def put(
    item_id: ItemId, fields: Fields, if_version: IfVersion = None, url: Url = LOCAL, token: Token = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Stores an item in place of what was stored of it."""
    _change("PUT", path_of(item_id), if_version, url, token, as_json, _object(fields))


@app.command()
def patch(
    item_id: ItemId, fields: Fields, if_version: IfVersion = None, url: Url = LOCAL, token: Token = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Stores some fields of an item; null takes one away."""
    _change("PATCH", path_of(item_id), if_version, url, token, as_json, _object(fields))


@app.command()
def disable(item_id: ItemId, url: Url = LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Takes an item out of all lists, on every replica."""
    _change("POST", f"{path_of(item_id)}/disable", None, url, token, as_json)


@app.command()
def enable(item_id: ItemId, url: Url = LOCAL, token: Token = "", as_json: AsJson = False) -> None:
    """Lets an item back into lists that was disabled."""
    _change("POST", f"{path_of(item_id)}/enable", None, url, token, as_json)


@app.command()
def delete(
    item_id: ItemId, if_version: IfVersion = None, url: Url = LOCAL, token: Token = "", as_json: AsJson = False
) -> None:
    """Deletes what is stored of an item: what the updates file and the export say of it holds again."""
    _change("DELETE", path_of(item_id), if_version, url, token, as_json)


@app.command("import")
def import_items(
    file: Annotated[Path, typer.Argument(help="File of changes, one JSON object a line.")],
    url: Url = LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Makes the changes of a file, and reports on each line. Exits with 1 if a line was refused."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        complain(f"{file} cannot be read ({error.strerror})")
        raise typer.Exit(1) from None
    reports: list[dict[str, Any]] = []
    for start in range(0, len(lines), LINES):
        body = b"\n".join(lines[start : start + LINES])
        if not body.strip():
            continue
        answer = call("POST", "/items", url, token, body, timeout_s=_IMPORT_S)
        reports += [{**report, "line": report["line"] + start} for report in answer["lines"]]
    counts: dict[str, int] = {}
    for report in reports:
        counts[report["outcome"]] = counts.get(report["outcome"], 0) + 1
    show({"lines": reports, "counts": counts}, as_json, import_lines)
    if any(report["error"] for report in reports):
        raise typer.Exit(1)


@app.command()
def changes(
    item_id: Annotated[str | None, typer.Option("--item", help="Only changes of this item.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most entries to show.")] = 20,
    url: Url = LOCAL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Lists who changed which item, and how; newest first."""
    asked = {"limit": limit, **({"item_id": item_id} if item_id is not None else {})}
    show(call("GET", f"/ops/items/changes?{urlencode(asked)}", url, token), as_json, changes_lines)


def path_of(item_id: str) -> str:
    """Returns the path of an item; a slash of its id is written %2F."""
    return f"/items/{quote(item_id, safe='')}"


def items_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns a page of items as a table."""
    rows = [
        [item["item_id"], _state(item), str(item["version"] or "–"), str(item["item"].get("title") or "–")]
        for item in answer["items"]
    ]
    more = [f"More: --cursor {answer['cursor']}"] if answer["cursor"] else []
    return [*table(["item", "state", "version", "title"], rows), *more]


def item_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns one item: its state, and its fields one a line."""
    stored = f"version {answer['version']}, changed at {answer['changed_at']}" if answer["version"] else "not stored"
    placed = f"placed by {answer['placed_by']}" if answer["placed_by"] else "has no place among other items"
    fields = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in answer["item"].items()]
    warnings = [f"Note: {text}" for text in answer["warnings"]]
    head = f"{answer['item_id']}: {_state(answer)}; {stored}; {placed}"
    return [printable(line) for line in (head, *fields, *warnings)]


def changed_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns what became of a change."""
    version = f" (version {answer['version']})" if answer["version"] else ""
    disabled = "; it is disabled" if answer["disabled"] else ""
    lines = [f"{answer['item_id']} {answer['outcome']}{version}{disabled}.", *answer["warnings"]]
    return [printable(line) for line in lines]


def import_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns the lines that were refused, and the counts of all."""
    refused = [
        printable(f"line {report['line']} ({report['item_id'] or 'no item'}): {report['outcome']}: {report['error']}")
        for report in answer["lines"]
        if report["error"]
    ]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(answer["counts"].items()))
    return [*refused, counts or "no lines"]


def changes_lines(answer: Mapping[str, Any]) -> list[str]:
    """Returns the log of changes as a table."""
    rows = [
        [
            entry["at"],
            entry["actor"],
            entry["item_id"],
            entry["action"],
            entry["outcome"],
            ", ".join(entry["fields"] or ()),
        ]
        for entry in answer["entries"]
    ]
    return table(["time", "by", "item", "action", "outcome", "fields"], rows)


def _state(item: Mapping[str, Any]) -> str:
    return "disabled" if item["disabled"] else "listed" if item["listed"] else "not listed"


def _change(
    method: str, path: str, if_version: int | None, url: str, token: str, as_json: bool, body: Any = None
) -> None:
    asked = "" if if_version is None else f"?if_version={if_version}"
    show(call(method, f"{path}{asked}", url, token, body), as_json, changed_lines)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise typer.BadParameter("the fields are no JSON object")
    return found
