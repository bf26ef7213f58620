"""Reads the categories of items: paths, tags, and the ways in which feeds and programs write either."""

from __future__ import annotations

import ast
import json

import polars as pl

from model.data.checks import Findings
from model.data.column_types import LIST_KINDS, as_text, as_text_lists, kind, require
from model.data.dataset import CategoryKind
from model.data.raw_dataset import split_tags
from model.data.times import Place

_TAG_NAMES = ("genres", "genre", "tags")
_ARROWS = (">", "›", "»", " / ")
# A slash is part of many a name (COOKIES/CONES), so it separates levels only where the column says that it holds paths.
_SLASH_NAMES = ("category_path", "categorypath", "product_type", "path", "breadcrumb", "breadcrumbs")
_SEVERAL = "|"


def read_categories(column: pl.Series, place: Place, findings: Findings) -> tuple[pl.Series, CategoryKind]:
    """Reads a column of categories.

    Args:
        column: [items] lists of text, lists written as text (`["a", "b"]`), paths (`a > b`) or tags (`a|b`).
        place: Where it comes from.
        findings: Receives a note on how the column was read.

    Returns:
        [items] lists of text, and whether they are levels of a path or tags.

    Raises:
        DataError: The column holds something else.
    """
    require(column, place, "values", LIST_KINDS)
    name = place.column or column.name
    tags = name.lower() in _TAG_NAMES
    if kind(column.dtype) == "list":
        lists = as_text_lists(column, place, "values")
    else:
        text = as_text(column).str.replace_all("&gt;", ">", literal=True).str.replace_all("&amp;", "&", literal=True)
        written = _written_lists(text)
        if written is None:
            return _from_text(text, name, tags, findings)
        lists = written
    if not tags and lists.explode().str.contains(">", literal=True).any():
        return _first_path(lists.list.first(), name, ">", findings), "path"
    findings.note(f"column {name!r} read as {'tags' if tags else 'levels of a path'}")
    return lists, "tags" if tags else "path"


def _from_text(text: pl.Series, name: str, tags: bool, findings: Findings) -> tuple[pl.Series, CategoryKind]:
    def holds(separator: str) -> bool:
        return bool(text.str.contains(separator, literal=True).any())

    arrows = (*_ARROWS, "/") if name.lower() in _SLASH_NAMES else _ARROWS
    if not tags and (arrow := next(filter(holds, arrows), None)):
        return _first_path(text, name, arrow, findings), "path"
    separators = (_SEVERAL, ";", ",") if tags else (_SEVERAL,)
    separator = next(filter(holds, separators), None)
    tags = tags or separator is not None
    separator = separator or (_SEVERAL if tags else ">")
    findings.note(f"column {name!r} read as {'tags' if tags else 'levels of a path'} between {separator!r}")
    return split_tags(text, separator), "tags" if tags else "path"


def _first_path(text: pl.Series, name: str, separator: str, findings: Findings) -> pl.Series:
    """Splits paths into levels. An item has one path: of several (`a > b|a > c`), the first is taken."""
    several = text.str.contains(_SEVERAL, literal=True).fill_null(value=False)
    findings.note(f"column {name!r} read as levels of a path between {separator.strip()!r}")
    if several.any():
        findings.note(f"{int(several.sum())} items have several paths in column {name!r}; the first is kept")
        text = text.str.split(_SEVERAL).list.first()
    return split_tags(text, separator)


def _written_lists(text: pl.Series) -> pl.Series | None:
    """Lists that were written as text, as pandas and JSON do; None if a value is no such list."""
    given = text.drop_nulls().str.strip_chars()
    if given.is_empty() or not given.str.contains(r"^\[.*\]$").all():
        return None
    lists = [None if value is None else _as_list(value.strip()) for value in text.to_list()]
    if any(value is not None and entries is None for value, entries in zip(text.to_list(), lists, strict=True)):
        return None
    return pl.Series(text.name, lists, dtype=pl.List(pl.String))


def _as_list(text: str) -> list[str] | None:
    for read in (json.loads, ast.literal_eval):
        try:
            entries = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(entries, list) and all(isinstance(entry, str | int | float) for entry in entries):
            return [str(entry) for entry in entries]
    return None
