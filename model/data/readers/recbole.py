"""RecBole's atomic files: tab-separated, a header of `name:type` fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.assemble import Raw, Table, split_tags
from model.data.checks import ROW, require_columns
from model.data.errors import DataError
from model.data.formats import LOG_COLUMNS
from model.data.readers.delimited import read_delimited

_DEFAULT = {"user": "user_id", "item": "item_id"}
_OPTIONAL = {"time": "timestamp", "type": "event_type", "value": "rating", "session": "session_id"}
_TITLES = ("title", "movie_title", "item_name", "name")
_TAGS = ("class", "genre", "genres", "category", "categories", "tags")
_TEXTS = ("description", "text")

# Age groups of MovieLens-1M, so that both data sets speak of the same ones.
_AGE_GROUPS = ((18, "under 18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (50, "45-49"), (56, "50-55"))
_AGE_OLDEST = "56+"


def read_recbole(source: Path, columns: Mapping[str, str] | None = None) -> Raw:
    """Read `X.inter` and, where they stand beside it, `X.item` and `X.user`.

    `source` is the folder or the `.inter` file; `columns` maps roles (user, item, time, type, value,
    session, scene) to other column names. Raises `DataError`.
    """
    log_file = _log_file(source)
    log = _read(log_file)
    wanted = {**_DEFAULT, **{r: c for r, c in _OPTIONAL.items() if c in log.rows.columns}, **(columns or {})}
    require_columns(log.rows.columns[:-1], wanted, str(log_file), ["user", "item"])
    events = log.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    rated = "type" not in wanted and wanted.get("value") == "rating"
    raw = Raw(
        name=log_file.stem,
        source=f"recbole:{log_file.name}",
        log=replace(log, rows=events),
        default_type="rating" if rated else "view",
    )
    if (item_file := log_file.with_suffix(".item")).exists():
        raw.items = _items(_read(item_file), wanted["item"])
    if (user_file := log_file.with_suffix(".user")).exists():
        raw.users = _users(_read(user_file), wanted["user"])
    return raw


def _log_file(source: Path) -> Path:
    if source.suffix == ".inter" or not source.is_dir():
        if source.exists() and source.suffix != ".inter":
            raise DataError(
                "the recbole format reads a folder or its .inter file",
                where=str(source),
                mend="name one of them",
            )
        return source
    found = sorted(source.glob("*.inter"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"the folder holds {len(found)} .inter files where one is expected ({names})",
            where=str(source),
            mend="name the .inter file itself",
        )
    return found[0]


def _read(path: Path) -> Table:
    """A typed table: names without their types; numbers stay text, each role is read as what it is for."""
    table = read_delimited(path, separator="\t", quote=None)
    header = table.rows.columns[:-1]
    untyped = [name for name in header if ":" not in name]
    if untyped:
        raise DataError(
            f"a RecBole header is `name:type` fields between tabs; without a type: {', '.join(untyped)}",
            where=f"{path}, line 1",
            mend="choose --format csv for a plain table",
        )
    lists = [name for name in header if name.endswith("_seq") and name.startswith("item_id_list")]
    if lists:
        raise DataError(
            f"{lists[0]} holds whole histories, one row for each of their ends",
            where=f"{path}, line 1",
            mend="give the plain interactions, or one line a user with --format sequences",
        )
    return replace(table, rows=table.rows.rename({name: name.split(":", 1)[0] for name in header}))


def _items(table: Table, key: str) -> Table:
    rows = table.rows
    require_columns(rows.columns[:-1], {"item": key}, table.file, ["item"])
    columns = [rows[key].alias("item_id"), rows[ROW]]
    for role, names in (("title", _TITLES), ("text", _TEXTS), ("brand", ("brand",)), ("price", ("price",))):
        found = next((name for name in names if name in rows.columns), None)
        if found:
            columns.append(rows[found].alias(role))
    tags = next((name for name in _TAGS if name in rows.columns), None)
    if tags:
        columns.append(split_tags(rows[tags], " ", drop=["unknown"]).alias("category"))
    items = pl.DataFrame(columns)
    if "release_year" in rows.columns and "title" in items.columns:
        year = rows["release_year"]
        dated = year.str.contains(r"^\d{4}$").fill_null(value=False)
        title = pl.when(dated).then(pl.format("{} ({})", "title", year)).otherwise("title")
        items = items.with_columns(title.alias("title"))
    return replace(table, rows=items)


def _users(table: Table, key: str) -> Table:
    rows = table.rows
    require_columns(rows.columns[:-1], {"user": key}, table.file, ["user"])
    rows = rows.with_columns(pl.col(key).alias("user_id"))
    rows = rows if key == "user_id" else rows.drop(key)
    if "age" in rows.columns:
        age = pl.col("age").cast(pl.Float64, strict=False)
        younger = [pl.when(age < below).then(pl.lit(group)) for below, group in _AGE_GROUPS]
        group = pl.coalesce(*younger, pl.when(age.is_not_null()).then(pl.lit(_AGE_OLDEST)))
        rows = rows.with_columns(group.alias("age")).rename({"age": "age_group"})
    return replace(table, rows=rows)
