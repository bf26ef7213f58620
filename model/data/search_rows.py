"""The searches without an item in the rows of a log."""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings
from model.data.dataset import SEARCH_SCHEMA
from service.artifact.query_text import kept_query


def take_searches(events: pl.DataFrame, findings: Findings) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Separates the searches without an item from the events of items.

    Args:
        events: The rows of a log, with the columns user_id, item_id, timestamp, event_type and query.
        findings: Gets a note of how many there are.

    Returns:
        The other rows, and the searches in order of time with the columns of `SEARCH_SCHEMA`; None where none are.
        A search without a user, a time or a text stays among the rows, whose checks count it.
    """
    text = events["query"].map_elements(kept_query, return_dtype=pl.String, skip_nulls=True)
    events = events.with_columns(text.alias("query"))
    told = pl.col("user_id").is_not_null() & pl.col("timestamp").is_not_null() & (pl.col("query") != "")
    search = (pl.col("event_type") == "search") & pl.col("item_id").is_null() & told
    found = events.filter(search.fill_null(value=False)).select(*SEARCH_SCHEMA)
    if found.is_empty():
        return events, None
    findings.note(f"{found.height} searches without an item are kept beside the log, for networks that read queries")
    return events.filter(~search.fill_null(value=False)), found.sort("timestamp", maintain_order=True)
