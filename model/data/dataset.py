"""The data set every stage reads: three tables in a folder, and the same log as flat arrays.

    DATA/events.parquet   user_id, item_id, timestamp (int64 ms UTC), event_type, value, session_id, maybe scene
    DATA/items.parquet    item_id, title, category, brand, attributes, text, price
    DATA/users.parquet    user_id, then one categorical string column per feature
    DATA/meta.json        name, source, has_time, category_kind, fingerprint, report

Events are grouped by user in order of first appearance and sorted by time within a user; ties keep the order
of the source. `items` and `users` have a row for every id of the log. `scene` is where the user was: only a log that
knows it has the column.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from model.data.errors import DataError
from service.artifact.array_types import IntArray
from service.artifact.features import SIGNAL_TYPES, type_index

CategoryKind = Literal["path", "tags"]

FORMAT = "gpt4rec-dataset"
FORMAT_VERSION = 1

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
# A column of `events` that is absent rather than empty, so that a log without scenes keeps its fingerprint.
SCENE = "scene"
NO_SCENE = -1
_TABLES = ("events", "items", "users")


@dataclass(frozen=True, eq=False)
class Dataset:
    """An interaction log with its items and users. Equal content has an equal `fingerprint`.

    `category_kind` says how to read `items.category`: "path" is ordered levels (department → type), "tags" an
    unordered set (genres). `timestamp` is null everywhere when `has_time` is false.
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
    ) -> Dataset:
        """A data set over tables that have the columns above; computes the fingerprint."""
        mark = fingerprint(events, items, users, category_kind)
        return cls(name, events, items, users, has_time, category_kind, mark, report or {}, source)

    @classmethod
    def load(cls, path: Path | str) -> Dataset:
        """Read a data set folder. Raises `DataError` where it is missing, damaged or of another format."""
        folder = Path(path)
        meta = _read_meta(folder)
        try:
            tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"the data set is damaged: {error}", where=str(folder), mend="import it again") from error
        kind: CategoryKind = "path" if meta["category_kind"] == "path" else "tags"
        mark = fingerprint(tables["events"], tables["items"], tables["users"], kind)
        if mark != meta["fingerprint"]:
            raise DataError(
                "the tables are not those the data set was written with (fingerprints differ)",
                where=str(folder),
                mend="import it again",
            )
        return cls(
            meta["name"], **tables, has_time=bool(meta["has_time"]), category_kind=kind, fingerprint=mark,
            report=meta["report"], source=meta["source"],
        )  # fmt: skip

    def save(self, path: Path | str) -> None:
        """Write the folder aside, then rename it into place; an earlier data set there is replaced.

        Raises `DataError` when something that is not a data set stands at `path`: it is left untouched.
        """
        target = Path(path).absolute()
        check_replaceable(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            aside.chmod(0o755)
            new, old = aside / "new", aside / "old"
            new.mkdir()
            for name in _TABLES:
                table: pl.DataFrame = getattr(self, name)
                table.write_parquet(new / f"{name}.parquet")
            meta = json.dumps(self._meta(), indent=2, ensure_ascii=False) + "\n"
            (new / "meta.json").write_text(meta, encoding="utf-8")
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _meta(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "source": self.source,
            "has_time": self.has_time,
            "category_kind": self.category_kind,
            "fingerprint": self.fingerprint,
            "report": self.report,
        }


def check_replaceable(target: Path) -> None:
    """Raise `DataError` unless `target` is free, an empty folder, or a data set that may be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        with contextlib.suppress(DataError):
            _read_meta(target)
            return
    raise DataError(
        "something that is not a data set is already there; it is left as it is",
        where=str(target),
        mend="choose another --out, or move it away",
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    where = str(folder / "meta.json")
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            "this is not a data set folder: it has no meta.json",
            where=str(folder),
            mend="make one with `gpt4rec data import …` or `gpt4rec data movielens-100k`",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"meta.json cannot be read: {error}", where=where, mend="import it again") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError("meta.json is not that of a data set", where=where, mend="import the data again")
    if meta.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"data set format {meta.get('format_version')}, this program reads {FORMAT_VERSION}",
            where=where,
            mend="import the data again",
        )
    missing = {"name", "source", "has_time", "category_kind", "fingerprint", "report"} - meta.keys()
    if missing:
        raise DataError(f"meta.json lacks {', '.join(sorted(missing))}", where=where, mend="import it again")
    return meta


def fingerprint(events: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame, category_kind: CategoryKind) -> str:
    """sha256 over names, types and values of the three tables: the same for the same content, whichever
    version of which library wrote the files."""
    digest = hashlib.sha256(category_kind.encode())
    for table in (events, items, users):
        digest.update(f"|{table.width}x{table.height}|".encode())
        for column in table.iter_columns():
            digest.update(f"{column.name}:{column.dtype}|".encode())
            _feed(digest, column)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, column: pl.Series) -> None:
    digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if isinstance(column.dtype, pl.List):
        rows = column.fill_null([]).to_list()
        digest.update(np.fromiter(map(len, rows), np.int64, len(rows)).tobytes())
        _feed(digest, pl.Series("", [value for row in rows for value in row], column.dtype.inner))
    elif column.dtype == pl.String:
        text = column.fill_null("")
        digest.update(text.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        digest.update("".join(text.to_list()).encode())
    else:
        digest.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes())


@dataclass(frozen=True, eq=False)
class Sequences:
    """Every user's history as flat arrays, oldest event first.

    User `u` owns rows `offsets[u]:offsets[u + 1]` of `item`, `type` and `time_ms`. `item` holds indices into
    `item_ids` (the whole catalogue: items without any event included), `type` indices into
    `service.artifact.features.EVENT_TYPES`, `time_ms` UTC milliseconds (all 0 when `has_time` is false). `scene` holds indices
    into `scenes`, or `NO_SCENE`; it is None where the log has no scenes at all.
    """

    user_ids: list[str]
    item_ids: list[str]
    offsets: IntArray  # [users + 1]
    item: IntArray  # [events]
    type: IntArray  # [events]
    time_ms: IntArray  # [events]
    has_time: bool = True
    scene: IntArray | None = None  # [events]
    scenes: tuple[str, ...] = ()

    def user(self, u: int) -> slice:
        """The rows of user `u`."""
        return slice(int(self.offsets[u]), int(self.offsets[u + 1]))

    @property
    def lengths(self) -> IntArray:
        """[users] number of events of each user."""
        return np.diff(self.offsets)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def n_events(self) -> int:
        return len(self.item)


def sequences(dataset: Dataset) -> Sequences:
    """The histories of a data set. Signals that belong to no history (impressions) are left out, as the
    service leaves them out; a user who has nothing else is left out too."""
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
        item=_rows_of(events["item_id"], catalogue),
        type=events["event_type"].replace_strict(types, return_dtype=pl.Int64).to_numpy().copy(),
        time_ms=time.to_numpy().astype(np.int64),
        has_time=dataset.has_time,
        scene=_rows_of(events[SCENE], scenes) if len(scenes) else None,
        scenes=tuple(scenes),
    )


def _rows_of(values: pl.Series, among: pl.Series) -> IntArray:
    """[values] the position of each value in `among` (which holds all of them, once each), −1 for a missing one."""
    index = pl.DataFrame({"id": among}).with_row_index("at")
    joined = pl.DataFrame({"id": values}).join(index, on="id", how="left", maintain_order="left")
    return joined["at"].cast(pl.Int64).fill_null(-1).to_numpy().copy()
