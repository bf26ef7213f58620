"""Amazon Office Products with item texts, as MiniOneRec prepared it: items.jsonl.gz and samples.csv.gz.

`samples` asks for one item after at most ten others, `split,user_id,history,target`; the questions of a user follow one
another, so laid over each other they give the user's events back, oldest first. There are no times.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import polars as pl

from model.data.assemble import Raw, Table
from model.data.checks import ROW
from model.data.errors import DataError
from model.data.files import read_text
from model.data.readers.delimited import read_delimited

_MARKUP = re.compile(r"<!--.*?-->|<style.*?</style>|<[^>]*>", re.DOTALL)


def read_office(folder: Path) -> Raw:
    """Read the folder with both files. Raises `DataError` where a file or field is missing or questions of a user do
    not follow one another."""
    log = _events(folder / "samples.csv.gz")
    return Raw("office", "amazon-office-text", log, _items(folder / "items.jsonl.gz"), in_order=True)


def _events(path: Path) -> Table:
    samples = read_delimited(path)
    missing = {"user_id", "history", "target"} - set(samples.rows.columns)
    if missing:
        raise DataError(f"columns are missing: {', '.join(sorted(missing))}", where=str(path))
    users: dict[str, list[str]] = {}
    lines: dict[str, list[int]] = {}
    for user, history, target, line in samples.rows.select("user_id", "history", "target", ROW).iter_rows():
        before = (history or "").split()
        events = users.setdefault(user, before)
        if events[len(events) - len(before) :] != before or len(events) < len(before):
            raise DataError("a question does not follow from the user's one before", where=f"{path}, line {line}")
        events.append(target)
        lines.setdefault(user, []).append(line)
    rows = [(user, item, lines[user][-1]) for user, events in users.items() for item in events]
    return Table(pl.DataFrame(rows, schema=["user_id", "item_id", ROW], orient="row"), str(path))


def _items(path: Path) -> Table:
    rows = []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        try:
            item = json.loads(text)
            description = _plain(item["description"])
            rows.append(
                (item["item_id"], item["title"], item["brand"] or None, f"{item['title']}. {description}", line)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"an item cannot be read: {error}", where=f"{path}, line {line}") from error
    return Table(pl.DataFrame(rows, schema=["item_id", "title", "brand", "text", ROW], orient="row"), str(path))


def _plain(description: str) -> str:
    """The text of a description, which is a printed list of paragraphs with markup."""
    try:
        parts = ast.literal_eval(description)
        description = " ".join(parts) if isinstance(parts, list) else description
    except (ValueError, SyntaxError):
        pass
    return " ".join(_MARKUP.sub(" ", description).split())
