"""What training reads of a log: what users did, each event once, behind the events that a model was trained on.

Left out are events that look made (`made_traffic`), those that are no history (impressions, searches without an item),
and everything of erased subjects, in the older data too. A session that never became a user is a user of its own, `s:`
and its id. Where ids are hashed, users are their pseudonyms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, SCENE, Dataset
from model.data.errors import DataError
from model.data.items_users import conform_items
from model.data.together import SAME_EVENT, by_user, each_once
from model.online.log_folder import LogFolder
from model.online.log_schema import LogError
from model.online.partitions import LogRange, attributed
from service.artifact.features import SIGNAL_TYPES

_USER, _SESSION = "u:", "s:"
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Extended:
    """A data set with the events of a log.

    Attributes:
        dataset: Old and new events; old items and users come first, in their order.
        new: Events that the data set did not have.
        made: Events of the log that were left out because they look made.
        erased: Events of the older data that were left out because their user was erased.
        nobody: Events of the log that belong to no user and no session.
        signals: Events of the log that are no history.
        new_users: Users that the data set did not have.
        new_items: Items that it did not have; only their ids are known.
    """

    dataset: Dataset
    new: int
    made: int
    erased: int
    nobody: int
    signals: int
    new_users: int
    new_items: int

    def counts(self) -> dict[str, int]:
        """Returns the numbers, for a report."""
        names = ("new", "made", "erased", "nobody", "signals", "new_users", "new_items")
        return {name: getattr(self, name) for name in names}


def is_log(place: str) -> bool:
    """Returns whether a place is a log rather than a data set."""
    folder = Path(place)
    return "://" in place or ((folder / "events").is_dir() and not (folder / "meta.json").exists())


def extended(base: Dataset | None, span: LogRange, *, made: bool = False) -> Extended:
    """Returns a data set with the events of a log behind its own.

    Args:
        base: What a model was trained on; None if there is nothing before the log.
        span: What is read of the log; a range goes by the times at which events were received.
        made: Whether events that look made are learned from as well.

    Returns:
        The data set, equal for equal data and an equal log.

    Raises:
        DataError: The data set has no times, or the log cannot be read, or there are no events at all.
    """
    base = _nothing(span) if base is None else base
    if not base.has_time:
        raise DataError(
            "the data set has no times, so events of a log have no place in it",
            where=base.name,
            fix="import the data again with its times",
        )
    columns = [name for name in base.events.columns if name in {*EVENT_SCHEMA, SCENE}]
    came, signals = _came(span, columns)
    nobody = int(came["user_id"].is_null().sum())
    came = came.filter(pl.col("user_id").is_not_null())
    doubted = came.filter(pl.col("made").is_not_null())
    old, erased = _without_erased(base.events, span.log)
    searches = None if base.searches is None else _without_erased(base.searches, span.log)[0]
    if not made:
        # What was not doubted when an earlier data set was made of this log may be by now.
        old = old.join(doubted.select(SAME_EVENT), on=SAME_EVENT, how="anti", maintain_order="left")
        came = came.filter(pl.col("made").is_null())
    events = each_once(old, came.drop("made"))
    if events.is_empty():
        raise LogError(
            "no event is left to learn from", where=span.log.url,
            fix="give the folder that `gpt4rec loop sink` writes, and a range that has events",
        )  # fmt: skip
    items, new_items = _with_ids(base.items, events, "item_id")
    users, new_users = _with_ids(base.users, events, "user_id")
    counts = {
        "new": len(events) - len(old), "made": 0 if made else len(doubted), "erased": erased, "nobody": nobody,
        "signals": signals, "new_users": new_users, "new_items": new_items,
    }  # fmt: skip
    dataset = Dataset.of(
        base.name, by_user(events).select(base.events.columns), conform_items(items), users,
        has_time=True, category_kind=base.category_kind, report={**base.report, "log": counts}, source=base.source,
        vectors=base.vectors, searches=searches,
    )  # fmt: skip
    return Extended(dataset, **counts)


def _nothing(span: LogRange) -> Dataset:
    events, items = pl.DataFrame(schema=EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA)
    return Dataset.of("log", events, items, events.select("user_id"), has_time=True, source=f"log:{span.log.url}")


def _came(span: LogRange, columns: list[str]) -> tuple[pl.DataFrame, int]:
    """The events of histories that were received in the range, by time, and how many others there were."""
    parts, signals = [], 0
    for rows in _parts(span, scenes=SCENE in columns):
        history = pl.col("item_id").is_not_null() & ~pl.col("type").is_in(sorted(SIGNAL_TYPES))
        kept = rows.filter(history)
        signals += len(rows) - len(kept)
        parts.append(
            kept.rename({"time_ms": "timestamp", "type": "event_type"})
            .with_columns(user_id=_user_of(kept["owner"]), session_id=pl.lit(None, pl.String))
            .select(*columns, "made", "received_ms")
        )
    schema = {name: EVENT_SCHEMA.get(name, pl.String()) for name in columns} | {"made": pl.String()}
    came = pl.concat([pl.DataFrame(schema={**schema, "received_ms": pl.Int64()}), *parts])
    # The order of parts depends on their number.
    return came.sort("timestamp", "received_ms", "user_id", maintain_order=True).drop("received_ms"), signals


def _parts(span: LogRange, *, scenes: bool) -> Iterator[pl.DataFrame]:
    """Yields the joined events of a log; a service that has just begun has none."""
    if not span.log.paths("events"):
        return
    inside = pl.lit(value=True)
    if span.from_ms is not None:
        inside &= pl.col("received_ms") >= span.from_ms
    if span.until_ms is not None:
        inside &= pl.col("received_ms") < span.until_ms
    # Whole days, because a subject that clicks too fast is marked for its day; one more for lists and duplicates.
    begin = None if span.from_ms is None else (span.from_ms // _DAY_MS - 1) * _DAY_MS
    for part in attributed(replace(span, from_ms=begin, learning=True), ("scene",) if scenes else ()):
        rows = part.outcomes.filter(inside)
        if scenes:
            shown = part.lists.select("list_id", SCENE)
            rows = rows.join(shown, on="list_id", how="left", maintain_order="left")
        yield rows


def _user_of(subjects: pl.Series) -> pl.Series:
    """Ids of users as the data set has them; null for who is nobody."""
    known = {
        subject: unquote(subject.removeprefix(_USER)) if subject.startswith(_USER) else unquote(subject)
        for subject in subjects.unique().to_list()
        if subject.startswith((_USER, _SESSION))
    }
    return subjects.replace_strict(known, default=None, return_dtype=pl.String)


def _without_erased(events: pl.DataFrame, log: LogFolder) -> tuple[pl.DataFrame, int]:
    """The events or searches without those that an erasure of the log has deleted, and how many these were."""
    gone = log.read_all("erased").group_by("subject").agg(erased_ms=pl.col("erased_ms").max())
    gone = gone.select(_user_of(gone["subject"]).alias("user_id"), "erased_ms")
    both = events.join(gone.filter(pl.col("user_id").is_not_null()), on="user_id", how="left", maintain_order="left")
    kept = both.filter(~(pl.col("timestamp") <= pl.col("erased_ms")).fill_null(value=False)).drop("erased_ms")
    return kept, len(events) - len(kept)


def _with_ids(table: pl.DataFrame, events: pl.DataFrame, name: str) -> tuple[pl.DataFrame, int]:
    """Adds a row for each id that has none."""
    ids = events.select(pl.col(name).drop_nulls().unique(maintain_order=True))
    missing = ids.join(table.select(name), on=name, how="anti", maintain_order="left")
    return pl.concat([table, missing], how="diagonal"), len(missing)
