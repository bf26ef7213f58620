"""Formats and options of `gpt4rec data import`.

The command line imports this module before anything else, so it must not import a data library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from model.data.columns import ITEM_ROLES, LOG_COLUMNS
from model.data.rules import Rules


class Format(StrEnum):
    """Values of `--format`.

    To add a format:

    1. Add a member here.
    2. Write `model/data/readers/<format>.py`, with a function that returns a `RawDataset`.
    3. Call that function in `model.data.importing.read_source`.
    4. Describe the format in docs/data.md with an example, which a test runs.
    """

    RECBOLE = "recbole"
    SEQUENCES = "sequences"
    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"
    COMPLETE_JOURNEY = "complete-journey"
    AMAZON_OFFICE = "amazon-office"
    MOVIELENS = "movielens"
    RETAILROCKET = "retailrocket"
    TAOBAO = "taobao"
    GORSE = "gorse"
    GA4 = "ga4"
    SHOPIFY = "shopify"


class ItemsFormat(StrEnum):
    """Values of `--items-format`: how the table of items is written."""

    TABLE = "table"
    MERCHANT_FEED = "merchant-feed"
    SHOPIFY = "shopify"


# Tables with one event a row and columns that the user names: these take several files, folders and every option.
TABLES = (Format.CSV, Format.PARQUET, Format.JSONL)
# Formats whose log has columns that `--map` can name.
_NAMED_COLUMNS = (Format.RECBOLE, *TABLES)
# Formats whose publisher fixed the names of the columns.
_FIXED_COLUMNS = (
    Format.COMPLETE_JOURNEY,
    Format.MOVIELENS,
    Format.RETAILROCKET,
    Format.TAOBAO,
    Format.GORSE,
    Format.GA4,
    Format.SHOPIFY,
)
_SEVERAL_FILES = (*TABLES, Format.TAOBAO, Format.GA4, Format.SHOPIFY)


@dataclass(frozen=True)
class TextOptions:
    """How delimited text is written.

    Attributes:
        separator: What separates fields, or None to take the likeliest from the first line.
        header: The first line names the columns; otherwise the columns are called 1, 2, 3, ….
        quote: The quote character, "" if fields are never quoted, or None for `"` unless a tab-separated file shows
            that it does not quote.
    """

    separator: str | None = None
    header: bool = True
    quote: str | None = None


@dataclass(frozen=True)
class ImportRequest:
    """The options of one import.

    Attributes:
        source: File, folder, pattern such as `logs/*.csv`, `-`, or name of a package that carries a data set.
        format: How the source is written.
        attributes: JSON file, item → list of attribute ids.
        items: Table of items.
        users: Table of users.
        times: Times of a sequence file.
        columns: Role → column name; the roles are those of `LOG_COLUMNS` and `ITEM_ROLES`. An empty name means that
            the role has no column.
        rules: How to read the values.
        more: Further sources of the same kind.
        items_columns: Role → column name of the table of items, where it differs from `columns`.
        items_format: How the table of items is written.
        text: How delimited text is written.
        date_format: How times are written, in the notation of strptime; by default ISO 8601 or an epoch.
        vectors: Vectors of items.
    """

    source: str
    format: Format
    attributes: Path | None = None
    items: Path | None = None
    users: Path | None = None
    times: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    more: tuple[str, ...] = ()
    items_columns: Mapping[str, str] = field(default_factory=dict)
    items_format: ItemsFormat = ItemsFormat.TABLE
    text: TextOptions = TextOptions()
    date_format: str | None = None
    vectors: Path | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources."""
        return (self.source, *self.more)

    def misuse(self) -> str | None:
        """Says why the options cannot be combined, or returns None if they can."""
        if self.times and self.format is not Format.SEQUENCES:
            return "--times needs --format sequences; other formats have a time column (--map time=COLUMN)"
        if self.format is Format.COMPLETE_JOURNEY and (self.attributes or self.items or self.users or self.columns):
            return (
                "complete-journey has its own items, users and column names: "
                "leave out --items, --users, --attributes and --map"
            )
        if self.format in _FIXED_COLUMNS and self.columns and not (self.items or self.users):
            return f"{self.format} has its own column names: leave out --map, or name them with --format csv"
        if self.format is Format.SEQUENCES and self.columns and not (self.items or self.users):
            return "a sequence file has no columns: use --map only together with --items or --users"
        if self.more and self.format not in _SEVERAL_FILES:
            return f"{self.format} takes one SOURCE; several files go with {', '.join(_SEVERAL_FILES)}"
        if self.text != TextOptions() and self.format is not Format.CSV:
            return "--separator, --quote, --header and --no-header need --format csv"
        if (self.items_columns or self.items_format is not ItemsFormat.TABLE) and not self.items:
            return "--items-map and --items-format need --items"
        if self.date_format and self.format not in TABLES:
            return f"--date-format needs one of the formats {', '.join(TABLES)}"
        if self.rules.decimal not in (None, ".", ","):
            return f"--decimal {self.rules.decimal!r}: choose . or ,"
        return None

    def unused_roles(self) -> dict[str, str]:
        """Returns the roles of `columns` and `items_columns` that no table of this import has, and why."""
        keys = {role for role, table in (("user", self.users), ("item", self.items)) if table}
        unused = {}
        for role in {**self.columns, **self.items_columns}:
            if role in ITEM_ROLES and not self.items:
                unused[role] = "there is no --items"
            elif (role in ITEM_ROLES or role in self.items_columns) and self.items_format is not ItemsFormat.TABLE:
                unused[role] = f"a {self.items_format} has column names of its own"
            elif role in LOG_COLUMNS and self.format not in _NAMED_COLUMNS and role not in keys:
                unused[role] = f"the log of {self.format} has no columns to name"
            elif role == "attributes" and self.attributes:
                unused[role] = "--attributes goes before it"
        return unused
