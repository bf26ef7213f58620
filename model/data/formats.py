"""Formats, column roles and options of `gpt4rec data import`.

The command line imports this module before anything else, so it must not import a data library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from model.data.rules import Rules

# Roles of log columns → names in `events`.
LOG_COLUMNS = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "type": "event_type",
    "value": "value",
    "quantity": "quantity",
    "session": "session_id",
    "scene": "scene",
}
ITEM_ROLES = ("title", "category", "brand", "attributes", "text", "price")


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
    COMPLETE_JOURNEY = "complete-journey"
    AMAZON_OFFICE = "amazon-office"


# Formats whose log has columns that `--map` can name.
_NAMED_COLUMNS = (Format.RECBOLE, Format.CSV, Format.PARQUET)


@dataclass(frozen=True)
class ImportRequest:
    """The options of one import.

    Attributes:
        source: File, folder, or name of a package that carries a data set.
        format: How the source is written.
        attributes: JSON file, item → list of attribute ids.
        items: Table of items.
        users: Table of users.
        times: Times of a sequence file.
        columns: Role → column name; the roles are those of `LOG_COLUMNS` and `ITEM_ROLES`.
        rules: How to read the values.
    """

    source: str
    format: Format
    attributes: Path | None = None
    items: Path | None = None
    users: Path | None = None
    times: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    def misuse(self) -> str | None:
        """Says why the options cannot be combined, or returns None if they can."""
        if self.times and self.format is not Format.SEQUENCES:
            return "--times needs --format sequences; other formats have a time column (--map time=COLUMN)"
        if self.format is Format.COMPLETE_JOURNEY and (self.attributes or self.items or self.users or self.columns):
            return (
                "complete-journey has its own items, users and column names: "
                "leave out --items, --users, --attributes and --map"
            )
        if self.format is Format.SEQUENCES and self.columns and not (self.items or self.users):
            return "a sequence file has no columns: use --map only together with --items or --users"
        return None

    def unused_roles(self) -> dict[str, str]:
        """Returns the roles of `columns` that no table of this import has, and why."""
        keys = {role for role, table in (("user", self.users), ("item", self.items)) if table}
        unused = {}
        for role in self.columns:
            if role in ITEM_ROLES and not self.items:
                unused[role] = "there is no --items"
            elif role in LOG_COLUMNS and self.format not in _NAMED_COLUMNS and role not in keys:
                unused[role] = f"the log of {self.format} has no columns to name"
            elif role == "attributes" and self.attributes:
                unused[role] = "--attributes goes before it"
        return unused


def parse_columns(text: str) -> dict[str, str]:
    """Parses the value of `--map`.

    Args:
        text: `ROLE=COLUMN` parts with commas between them, such as `user=uid,item=sku`.

    Returns:
        Role → column name.

    Raises:
        ValueError: A part is malformed, or a role is unknown or given twice.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        role, equals, column = (p.strip() for p in part.partition("="))
        roles = (*LOG_COLUMNS, *ITEM_ROLES)
        if not equals or not column:
            raise ValueError(f"{part!r} is not ROLE=COLUMN")
        if role not in roles:
            raise ValueError(f"{role!r} is not a role; choose from {', '.join(roles)}")
        if role in columns:
            raise ValueError(f"{role!r} is given twice")
        columns[role] = column
    return columns
