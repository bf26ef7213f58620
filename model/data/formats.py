"""What `gpt4rec data import` can be asked for. Light: it loads no data library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

# What a column of a log is for → its name in `events`.
LOG_COLUMNS = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "type": "event_type",
    "value": "value",
    "session": "session_id",
    "scene": "scene",
}
ITEM_ROLES = ("title", "category", "brand", "attributes", "text", "price")


class Format(StrEnum):
    RECBOLE = "recbole"
    SEQUENCES = "sequences"
    CSV = "csv"
    PARQUET = "parquet"
    COMPLETE_JOURNEY = "complete-journey"
    OFFICE = "amazon-office"


@dataclass(frozen=True)
class ImportRequest:
    """What to import. `columns` maps roles (user, item, time, …; title, category, … of items) to column
    names."""

    source: str
    format: Format
    attributes: Path | None = None
    items: Path | None = None
    users: Path | None = None
    times: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def misuse(self) -> str | None:
        """Why the options do not go together, or None."""
        if self.times and self.format is not Format.SEQUENCES:
            return "--times goes with --format sequences; elsewhere times are a column (--map time=COLUMN)"
        if self.format is Format.COMPLETE_JOURNEY and (self.attributes or self.items or self.users or self.columns):
            return "complete-journey brings its own items, users and column names"
        if self.format is Format.SEQUENCES and self.columns and not (self.items or self.users):
            return "a sequence file has no columns to --map (only --items and --users have)"
        return None


def parse_columns(text: str) -> dict[str, str]:
    """`user=uid,item=sku` → roles to column names. Raises `ValueError` that says what is wrong."""
    columns: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        role, equals, column = (p.strip() for p in part.partition("="))
        roles = (*LOG_COLUMNS, *ITEM_ROLES)
        if not equals or not column:
            raise ValueError(f"{part!r} is not ROLE=COLUMN")
        if role not in roles:
            raise ValueError(f"{role!r} is no role; roles are {', '.join(roles)}")
        if role in columns:
            raise ValueError(f"{role!r} is given twice")
        columns[role] = column
    return columns
