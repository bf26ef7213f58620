"""What a reader returns: the tables of one source, before any check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.checks import ROW, Findings
from model.data.dataset import CategoryKind
from model.data.times import Place


@dataclass
class SourceTable:
    """Rows as a reader read them.

    Attributes:
        rows: The columns, and in column `ROW` the line (or row) number of each row.
        file: Name of the file, for messages.
        unit: What `ROW` counts: "line", "row" or "entry".
    """

    rows: pl.DataFrame
    file: str
    unit: str = "line"

    def place(self) -> Place:
        """Where the rows come from, for messages."""
        return Place(self.file, self.rows[ROW], self.unit)


@dataclass
class RawDataset:
    """The result of a reader, and the input of `model.data.assemble.assemble`.

    Attributes:
        name: Name of the data set.
        source: Format and file, such as `csv:events.csv`.
        log: `user_id` and `item_id`, and optionally `timestamp`, `event_type`, `value`, `session_id` and `scene`, of
            any type.
        items: `item_id` and some of the columns of `ITEM_SCHEMA`, if the source has items.
        users: `user_id` and one column for each feature, if the source has users.
        category_kind: How to read `items.category`.
        default_type: The type of events without one.
        in_order: The order of the source is the order of the history (a sequence file). Rows are then not sorted, and
            repeated rows are not duplicates.
        findings: What the reader dropped and noted.
    """

    name: str
    source: str
    log: SourceTable
    items: SourceTable | None = None
    users: SourceTable | None = None
    category_kind: CategoryKind = "tags"
    default_type: str = "view"
    in_order: bool = False
    findings: Findings = field(default_factory=Findings)


def numbered(rows: pl.DataFrame, first: int = 2) -> pl.DataFrame:
    """Adds the line number of each row in column `ROW`; in a file with a header, the first row is line 2."""
    return rows.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(ROW))


def split_tags(column: pl.Series, separator: str, drop: Sequence[str] = ()) -> pl.Series:
    """Splits text such as `Action|Comedy` into lists of tags.

    Args:
        column: [rows] text; null becomes an empty list.
        separator: The text between two tags.
        drop: Tags to leave out.

    Returns:
        [rows] lists of stripped, non-empty tags, under the name of the column.
    """
    tags = pl.col("t").str.split(separator).list.eval(pl.element().str.strip_chars())
    keep = tags.list.eval(pl.element().filter((pl.element() != "") & ~pl.element().is_in(list(drop))))
    return pl.DataFrame({"t": column.cast(pl.String)}).select(keep.fill_null([])).to_series().alias(column.name)
