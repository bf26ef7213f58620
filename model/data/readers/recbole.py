"""The format `recbole`: RecBole's atomic files, tab-separated with a header of `name:type` fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings, listed_columns, require_columns
from model.data.columns import LOG_COLUMNS
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.formats import TextOptions
from model.data.missing import WORDS
from model.data.raw_dataset import RawDataset, SourceTable, split_tags
from model.data.readers.categories import read_categories
from model.data.readers.delimited import read_delimited

_DEFAULT = {"user": "user_id", "item": "item_id"}
_OPTIONAL = {"time": "timestamp", "type": "event_type", "value": "rating", "session": "session_id"}
_TITLES = ("title", "movie_title", "item_name", "name")
_TAGS = ("class", "genre", "genres", "category", "categories", "tags")
_TEXTS = ("description", "text")

# The age groups of MovieLens-1M, so that MovieLens-100K has the same ones.
_AGE_GROUPS = ((18, "under 18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (50, "45-49"), (56, "50-55"))
_AGE_OLDEST = "56+"


def read_recbole(source: Path, columns: Mapping[str, str] | None = None) -> RawDataset:
    """Reads `X.inter`, and `X.item` and `X.user` if they are in the same folder.

    Args:
        source: The folder, or the `.inter` file.
        columns: Role (user, item, time, type, value, session, scene) → column name, where it is not the default.

    Raises:
        DataError: A file cannot be read, is not in RecBole's format, or lacks a column.
    """
    log_file = _log_file(source)
    log = _read(log_file)
    wanted = {**_DEFAULT, **{r: c for r, c in _OPTIONAL.items() if c in log.rows.columns}, **(columns or {})}
    require_columns(log.rows.columns[:-1], wanted, str(log_file), ["user", "item"])
    events = log.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    rated = "type" not in wanted and wanted.get("value") == "rating"
    raw = RawDataset(
        name=log_file.stem,
        source=f"recbole:{log_file.name}",
        log=replace(log, rows=events, names={LOG_COLUMNS[role]: column for role, column in wanted.items()}),
        default_type="rating" if rated else "view",
    )
    _note_unused(log, wanted.values(), raw.findings)
    if (item_file := log_file.with_suffix(".item")).exists():
        raw.items, raw.category_kind = _items(_read(item_file), wanted["item"], raw.findings)
    if (user_file := log_file.with_suffix(".user")).exists():
        raw.users = _users(_read(user_file), wanted["user"])
    return raw


def _log_file(source: Path) -> Path:
    if source.suffix == ".inter" or not source.is_dir():
        if source.exists() and source.suffix != ".inter":
            raise DataError(
                "the recbole format expects a folder or its .inter file",
                where=str(source),
                fix="name the folder, or its .inter file",
            )
        return source
    logs = sorted(source.glob("*.inter"))
    if len(logs) != 1:
        names = ", ".join(file.name for file in logs) or "none"
        raise DataError(
            f"the folder holds {len(logs)} .inter files, but one is expected ({names})",
            where=str(source),
            fix="name the .inter file itself",
        )
    return logs[0]


def _read(path: Path) -> SourceTable:
    """Reads a table and removes the types from its column names; every value stays text until its role is known."""
    table = read_delimited(path, TextOptions(separator="\t", quote=""))
    header = table.rows.columns[:-1]
    untyped = [name for name in header if ":" not in name]
    if untyped:
        raise DataError(
            f"a RecBole header has `name:type` fields with tabs between; fields without a type: {', '.join(untyped)}",
            where=f"{path}, line 1",
            fix="use --format csv for a plain table",
        )
    lists = [name for name in header if name.endswith("_seq") and name.startswith("item_id_list")]
    if lists:
        raise DataError(
            f"the column {lists[0]} holds whole histories, a row for each event",
            where=f"{path}, line 1",
            fix="give one interaction a row, or use --format sequences with one line a user",
        )
    return replace(table, rows=table.rows.rename({name: name.split(":", 1)[0] for name in header}))


def _same_name(key: str) -> str:
    return f"call the column {key}, as in the .inter file"


def _note_unused(table: SourceTable, used: Collection[str], findings: Findings) -> None:
    unused = [name for name in table.rows.columns if name not in (*used, ROW)]
    if unused:
        findings.note(f"columns of {Path(table.file).name} that are not used: {listed_columns(unused)}")


def _items(table: SourceTable, key: str, findings: Findings) -> tuple[SourceTable, CategoryKind]:
    rows = table.rows
    require_columns(rows.columns[:-1], {"item": key}, table.file, ["item"], _same_name(key))
    names = {"item_id": key}
    for role, known in (("title", _TITLES), ("text", _TEXTS), ("brand", ("brand",)), ("price", ("price",))):
        if column := next((name for name in known if name in rows.columns), None):
            names[role] = column
    kind: CategoryKind = "tags"
    columns = [*(rows[column].alias(role) for role, column in names.items()), rows[ROW]]
    tags = next((name for name in _TAGS if name in rows.columns), None)
    if tags:
        names["category"] = tags
        if rows[tags].str.contains(">", literal=True).any():
            lists, kind = read_categories(rows[tags], table.place(tags), findings)
        else:
            lists = split_tags(rows[tags], " ", drop=["unknown"])
        columns.append(lists.alias("category"))
    _note_unused(table, (*names.values(), "release_year"), findings)
    items = pl.DataFrame(columns)
    if "release_year" in rows.columns and "title" in items.columns:
        year = rows["release_year"]
        dated = year.str.contains(r"^\d{4}$").fill_null(value=False)
        title = pl.when(dated).then(pl.format("{} ({})", "title", year)).otherwise("title")
        items = items.with_columns(title.alias("title"))
    return replace(table, rows=items, names=names), kind


def _users(table: SourceTable, key: str) -> SourceTable:
    rows = table.rows
    require_columns(rows.columns[:-1], {"user": key}, table.file, ["user"], _same_name(key))
    rows = rows.with_columns(pl.col(key).alias("user_id"))
    rows = rows if key == "user_id" else rows.drop(key)
    if "age" in rows.columns:
        given = rows["age"].set(rows["age"].str.strip_chars().is_in(sorted(WORDS)).fill_null(value=False), None)
        numbers = given.cast(pl.Float64, strict=False)
        if numbers.null_count() == given.null_count():  # else these are groups already
            age = pl.lit(numbers)
            younger = [pl.when(age < below).then(pl.lit(group)) for below, group in _AGE_GROUPS]
            group = pl.coalesce(*younger, pl.when(age.is_not_null()).then(pl.lit(_AGE_OLDEST)))
            rows = rows.with_columns(group.alias("age"))
        rows = rows.rename({"age": "age_group"})
    return replace(table, rows=rows, names={"user_id": key, "age_group": "age"})
