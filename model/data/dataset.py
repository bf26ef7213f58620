"""The data set that every stage reads: three tables in a folder, and the same log as flat arrays.

    DATA/events.parquet   user_id, item_id, timestamp (int64 ms UTC), event_type, value, session_id, maybe scene
    DATA/items.parquet    item_id, title, category, brand, attributes, text, price, and maybe columns of `SHOP_SCHEMA`
    DATA/users.parquet    user_id, then one categorical string column per feature
    DATA/vectors.parquet  item_id, vector; only where the import was given vectors (`model.data.vectors`)
    DATA/searches.parquet user_id, timestamp, query; only where the log has searches without an item
    DATA/meta.json        name, source, has_time, category_kind, fingerprint, report

Events are grouped by user in order of first appearance and sorted by time within a user; ties keep the order of the
source. `items` and `users` have a row for every id of the log. `scene` is where in the shop the user was; a log without
scenes has no such column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from model.data.dataset_folder import read_meta, replacing_data_set, write_meta
from model.data.errors import DataError
from model.data.fingerprint import fingerprint
from model.data.searches import Searches
from model.data.vectors import ItemVectors
from service.artifact.array_types import IntArray
from service.artifact.features import SIGNAL_TYPES, type_index
from service.artifact.session_marks import NO_SESSION, mark_number, mark_of

CategoryKind = Literal["path", "tags"]

EVENT_SCHEMA: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Int64(),
    "event_type": pl.String(),
    "value": pl.Float64(),
    "session_id": pl.String(),
}
ITEM_SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "category": pl.List(pl.String()),
    "brand": pl.String(),
    "attributes": pl.List(pl.String()),
    "text": pl.String(),
    "price": pl.Float64(),
}
# Absent from `events` rather than empty in a log without scenes, so that the fingerprint of such a log stays the same.
SCENE = "scene"
NO_SCENE = -1
_TABLES = ("events", "items", "users")
SEARCH_SCHEMA: dict[str, pl.DataType] = {"user_id": pl.String(), "timestamp": pl.Int64(), "query": pl.String()}
# Absent in a log without searches, so that its folder and its fingerprint stay the same.
_SEARCHES = "searches"


@dataclass(frozen=True, eq=False)
class Dataset:
    """An interaction log with its items and users.

    Attributes:
        name: Name of the data set.
        events: The log, with the columns of `EVENT_SCHEMA` and maybe `SCENE`.
        items: The catalogue, with the columns of `ITEM_SCHEMA`, and maybe of `model.data.shop_fields.SHOP_SCHEMA`.
        users: `user_id`, then a text column for each feature.
        has_time: The log has times; otherwise `timestamp` is null everywhere.
        category_kind: How to read `items.category`: "path" has ordered levels (department → type), "tags" is an
            unordered set (genres).
        fingerprint: sha256 of the content; equal content has an equal fingerprint.
        report: What the import counted, dropped and noted.
        source: Where the data came from, such as `csv:events.csv`.
        vectors: Vectors that were given for items; None without.
        searches: The searches without an item, with the columns of `SEARCH_SCHEMA`, in order of time; None without any.
            They are no events: only networks that read queries see them.
    """

    name: str
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    has_time: bool
    category_kind: CategoryKind
    fingerprint: str
    report: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    vectors: ItemVectors | None = None
    searches: pl.DataFrame | None = None

    @classmethod
    def of(
        cls,
        name: str,
        events: pl.DataFrame,
        items: pl.DataFrame,
        users: pl.DataFrame,
        *,
        has_time: bool,
        category_kind: CategoryKind = "tags",
        report: dict[str, Any] | None = None,
        source: str = "",
        vectors: ItemVectors | None = None,
        searches: pl.DataFrame | None = None,
    ) -> Dataset:
        """Makes a data set of tables that have the columns above, and of vectors, and computes its fingerprint."""
        digest = _digest(events, items, users, category_kind, vectors, searches)
        return cls(name, events, items, users, has_time, category_kind, digest, report or {}, source, vectors, searches)

    @classmethod
    def load(cls, path: Path | str) -> Dataset:
        """Reads a data set folder.

        Raises:
            DataError: The folder is missing, damaged or of another format version.
        """
        folder = Path(path)
        meta = read_meta(folder)
        try:
            tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
            vectors = ItemVectors.load(folder)
            found = folder / f"{_SEARCHES}.parquet"
            searches = pl.read_parquet(found) if found.exists() else None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"the data set is damaged: {error}", where=str(folder), fix="import the data again"
            ) from error
        kind: CategoryKind = "path" if meta["category_kind"] == "path" else "tags"
        digest = _digest(tables["events"], tables["items"], tables["users"], kind, vectors, searches)
        if digest != meta["fingerprint"]:
            raise DataError(
                "the tables were changed after the data set was written (fingerprints differ)",
                where=str(folder),
                fix="import the data again",
            )
        return cls(
            meta["name"], **tables, has_time=bool(meta["has_time"]), category_kind=kind, fingerprint=digest,
            report=meta["report"], source=meta["source"], vectors=vectors, searches=searches,
        )  # fmt: skip

    def save(self, path: Path | str) -> None:
        """Writes the folder under a temporary name and renames it into place; replaces an earlier data set.

        Raises:
            DataError: Something that is not a data set is at `path`; it is left untouched.
            OSError: The folder cannot be written; an earlier data set is left as it was.
        """
        with replacing_data_set(Path(path)) as folder:
            self._write(folder)

    def _write(self, folder: Path) -> None:
        for name in _TABLES:
            table: pl.DataFrame = getattr(self, name)
            table.write_parquet(folder / f"{name}.parquet")
        if self.vectors is not None:
            self.vectors.save(folder)
        if self.searches is not None:
            self.searches.write_parquet(folder / f"{_SEARCHES}.parquet")
        write_meta(
            folder, name=self.name, source=self.source, has_time=self.has_time, category_kind=self.category_kind,
            fingerprint=self.fingerprint, report=self.report,
        )  # fmt: skip


def _digest(
    events: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    kind: CategoryKind,
    vectors: ItemVectors | None,
    searches: pl.DataFrame | None,
) -> str:
    tables = fingerprint(events, items, users, kind, searches)
    return tables if vectors is None else vectors.digest(tables)


@dataclass(frozen=True, eq=False)
class Sequences:
    """The histories of all users as flat arrays, oldest event first.

    Attributes:
        user_ids: [users] id of each user.
        item_ids: [items] the whole catalogue, including items without an event.
        offsets: [users + 1] user `u` owns rows `offsets[u]:offsets[u + 1]` of the arrays below.
        item: [events] indices into `item_ids`.
        type: [events] indices into `service.artifact.features.EVENT_TYPES`.
        time_ms: [events] UTC milliseconds, 0 everywhere in a log without times.
        has_time: The log has times.
        scene: [events] indices into `scenes`, or `NO_SCENE`; None in a log without scenes.
        scenes: The scenes of the log.
        query: [events, QUERY_GRAMS] n-grams of the queries of searches that were merged into the histories
            (`model.data.query_histories`), which have the item `n_items`; None elsewhere.
        searches: The searches without an item; None in a log without any.
        session: [events] numbers of the sessions (`service.artifact.session_marks`), 0 where unknown; None in a log
            without any.
    """

    user_ids: list[str]
    item_ids: list[str]
    offsets: IntArray
    item: IntArray
    type: IntArray
    time_ms: IntArray
    has_time: bool = True
    scene: IntArray | None = None
    scenes: tuple[str, ...] = ()
    query: IntArray | None = None
    searches: Searches | None = None
    session: IntArray | None = None

    def user(self, u: int) -> slice:
        """The rows of user `u`."""
        return slice(int(self.offsets[u]), int(self.offsets[u + 1]))

    @property
    def lengths(self) -> IntArray:
        """[users] number of events of each user."""
        return np.diff(self.offsets)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue."""
        return len(self.item_ids)

    @property
    def n_events(self) -> int:
        """Number of events of all users."""
        return len(self.item)


def sequences(dataset: Dataset) -> Sequences:
    """Returns the histories of a data set.

    Signals that belong to no history (impressions) are left out, as the service does; so are users who have nothing
    else.
    """
    events = dataset.events.filter(~pl.col("event_type").is_in(sorted(SIGNAL_TYPES)))
    catalogue = pl.concat([dataset.items["item_id"], events["item_id"]]).unique(maintain_order=True)
    users = events["user_id"].unique(maintain_order=True)
    types = {name: type_index(name) for name in events["event_type"].unique()}
    counts = events.group_by("user_id", maintain_order=True).len()["len"].cast(pl.Int64).to_numpy()
    offsets = np.zeros(len(users) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    scenes = events[SCENE].drop_nulls().unique().sort() if SCENE in events.columns else pl.Series(dtype=pl.String)
    time = events["timestamp"] if dataset.has_time else pl.Series("timestamp", [0]).new_from_index(0, len(events))
    return Sequences(
        user_ids=users.to_list(),
        item_ids=catalogue.to_list(),
        offsets=offsets,
        item=_positions(events["item_id"], catalogue),
        type=events["event_type"].replace_strict(types, return_dtype=pl.Int64).to_numpy().copy(),
        time_ms=time.to_numpy().astype(np.int64),
        has_time=dataset.has_time,
        scene=_positions(events[SCENE], scenes) if len(scenes) else None,
        scenes=tuple(scenes),
        searches=None if dataset.searches is None else Searches.of(dataset.searches, users.to_list()),
        session=_sessions(events["session_id"]),
    )


def _sessions(ids: pl.Series) -> IntArray | None:
    """[events] numbers of sessions; None where none is known."""
    names = ids.drop_nulls().unique()
    if names.is_empty():
        return None
    numbers = pl.Series([mark_number(mark_of(name)) for name in names], dtype=pl.Int64)
    return ids.replace_strict(names, numbers, default=NO_SESSION, return_dtype=pl.Int64).to_numpy().copy()


def _positions(values: pl.Series, within: pl.Series) -> IntArray:
    """[values] position of each value in `within`, which holds each of them once; −1 for a missing value."""
    index = pl.DataFrame({"id": within}).with_row_index("position")
    joined = pl.DataFrame({"id": values}).join(index, on="id", how="left", maintain_order="left")
    return joined["position"].cast(pl.Int64).fill_null(-1).to_numpy().copy()
