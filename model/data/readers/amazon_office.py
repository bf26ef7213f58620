"""The format `amazon-office`: Amazon Office Products with item texts, as MiniOneRec prepared it.

The folder holds items.jsonl.gz and samples.csv.gz. A sample (`split,user_id,history,target`) asks for the item that
follows at most ten others. Each sample of a user continues the one before, so the reader overlaps them to restore the
user's events, oldest first. There are no times.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import polars as pl

from model.data.checks import RENAME_COLUMNS, ROW, require_columns
from model.data.errors import DataError
from model.data.files import read_text
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.delimited import read_delimited

_MARKUP = re.compile(r"<!--.*?-->|<style.*?</style>|<[^>]*>", re.DOTALL)
_SAMPLE_COLUMNS = ("user_id", "history", "target")


def read_amazon_office(folder: Path) -> RawDataset:
    """Reads the folder with both files.

    Raises:
        DataError: A file or a field is missing, or a sample does not continue the user's earlier ones.
    """
    log = _events(folder / "samples.csv.gz")
    return RawDataset("office", "amazon-office-text", log, _items(folder / "items.jsonl.gz"), in_order=True)


def _events(path: Path) -> SourceTable:
    samples = read_delimited(path)
    wanted = {name: name for name in _SAMPLE_COLUMNS}
    require_columns(samples.rows.columns[:-1], wanted, str(path), _SAMPLE_COLUMNS, RENAME_COLUMNS)
    users: dict[str, list[str]] = {}
    lines: dict[str, list[int]] = {}
    for user, history, target, line in samples.rows.select(*_SAMPLE_COLUMNS, ROW).iter_rows():
        before = (history or "").split()
        events = users.setdefault(user, before)
        if events[len(events) - len(before) :] != before or len(events) < len(before):
            raise DataError(
                "a history does not continue the user's earlier samples",
                where=f"{path}, line {line}",
                fix="sort the rows of each user oldest first, and keep all of them",
            )
        events.append(target)
        lines.setdefault(user, []).append(line)
    rows = [(user, item, lines[user][-1]) for user, events in users.items() for item in events]
    return SourceTable(pl.DataFrame(rows, schema=["user_id", "item_id", ROW], orient="row"), str(path))


def _items(path: Path) -> SourceTable:
    rows = []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        try:
            item = json.loads(text)
            description = _plain(item["description"])
            rows.append(
                (item["item_id"], item["title"], item["brand"] or None, f"{item['title']}. {description}", line)
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"it lacks the field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"an item cannot be read: {reason}",
                where=f"{path}, line {line}",
                fix="write a JSON object with item_id, title, brand and description on each line",
            ) from error
    return SourceTable(pl.DataFrame(rows, schema=["item_id", "title", "brand", "text", ROW], orient="row"), str(path))


def _plain(description: str) -> str:
    """Removes markup from a description, which is text or a printed Python list of paragraphs."""
    try:
        parts = ast.literal_eval(description)
        description = " ".join(parts) if isinstance(parts, list) else description
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    return " ".join(_MARKUP.sub(" ", description).split())
