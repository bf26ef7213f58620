"""What a reader returns: the tables of one source, before any check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.checks import ROW, Findings
from model.data.column_types import plain
from model.data.dataset import CategoryKind
from model.data.rules import Rules
from model.data.times import Place
from model.data.vectors import ItemVectors


@dataclass
class SourceTable:
    """Rows as a reader read them.

    Attributes:
        rows: The columns, and in column `ROW` the line (or row) number of each row.
        file: Name of the file, for messages; of several files, the first and their number.
        unit: What `ROW` counts: "line", "row" or "entry".
        names: Name in `rows` → name in the file, of the columns that were renamed.
        files: Names of the files, where they are several; `ROW` then holds `FILE_STEP` times the position of the file
            in them, plus the line.
        notes: What the reader of the file noted.
        partitions: Columns that are names of folders, such as `day` of `day=2025-03-01`.

    Columns are converted to plain types when the table is made (`model.data.column_types.plain`).
    """

    rows: pl.DataFrame
    file: str
    unit: str = "line"
    names: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    partitions: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.rows = plain(self.rows)

    def place(self, column: str | None = None) -> Place:
        """Where the rows, or one of their columns, come from, for messages."""
        name = self.name(column) if column else None
        return Place(self.file, self.rows[ROW], self.unit, name, self.files)

    def name(self, column: str) -> str:
        """The name of a column in the file."""
        return self.names.get(column, column)


@dataclass
class RawDataset:
    """The result of a reader, and the input of `model.data.assemble.assemble`.

    Attributes:
        name: Name of the data set.
        source: Format and file, such as `csv:events.csv`.
        log: `user_id` and `item_id`, and optionally `timestamp`, `event_type`, `value`, `quantity`, `session_id` and
            `scene`, of any type.
        items: `item_id` and some of the columns of `ITEM_SCHEMA` and `SHOP_SCHEMA`, if the source has items.
        users: `user_id` and one column for each feature, if the source has users.
        category_kind: How to read `items.category`.
        default_type: The type of events without one.
        in_order: The order of the source is the order of the history (a sequence file). Rows are then not sorted, and
            repeated rows are not duplicates.
        findings: What the reader dropped and noted.
        unit_prices: The value of an event is the price of one piece; it is multiplied by the quantity.
        rules: What the caller says about the values.
        types: Event type of the format, in lower case → event type of this program.
        vectors: Vectors of items, and the name of their file; None without.
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
    unit_prices: bool = False
    rules: Rules = field(default_factory=Rules)
    types: Mapping[str, str] = field(default_factory=dict)
    vectors: tuple[ItemVectors, str] | None = None


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
