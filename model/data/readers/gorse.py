"""The format `gorse`: feedback.csv, items.csv and users.csv as gorse exports them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model.data.raw_dataset import RawDataset
from model.data.readers.tables import beside, log_file, picked, read_table, tags_of, zone_joined

_FEEDBACK = {
    "user_id": ("userid",),
    "item_id": ("itemid",),
    "event_type": ("feedbacktype",),
    "value": ("value",),
    "timestamp": ("timestamp",),
}
_ITEMS = {"item_id": ("itemid",), "category": ("categories",), "attributes": ("labels",), "title": ("comment",)}
_USERS = {"user_id": ("userid",), "labels": ("labels",)}
# Users of gorse name their types themselves; these are the names of its documentation.
_TYPES = {"read": "view", "star": "click", "like": "click", "buy": "purchase"}


def read_gorse(source: Path) -> RawDataset:
    """Reads the feedback, and the items and users that lie in the same folder.

    Args:
        source: The folder, or the file of feedback.

    Raises:
        DataError: A file cannot be read or lacks a column.
    """
    feedback = log_file(source, "feedback.csv", "feedback.jsonl")
    log = picked(read_table(feedback), _FEEDBACK, ["user_id", "item_id"])
    if "timestamp" in log.rows.columns:
        log.rows = log.rows.with_columns(zone_joined("timestamp").alias("timestamp"))
    raw = RawDataset(feedback.absolute().parent.name, f"gorse:{feedback.name}", log, types=_TYPES)
    if not source.is_dir():
        return raw
    if items := beside(source, "items.csv", "items.jsonl"):
        table = picked(read_table(items), _ITEMS, ["item_id"])
        lists = [tags_of(table, name, "|") for name in ("category", "attributes") if name in table.rows.columns]
        raw.items = replace(table, rows=table.rows.with_columns(lists))
    if users := beside(source, "users.csv", "users.jsonl"):
        raw.users = picked(read_table(users), _USERS, ["user_id"])
    return raw
