"""Which list an event belongs to: the authoritative join of exposures and events.

- An event that names a list (`list_id`) belongs to it if the list was shown to the event's subject and holds its item;
  otherwise it is unmatched.
- Else, an event that names a request (`request_id`) belongs to the list of that request, by subject and item.
- Else it belongs to the newest list of its subject that shows the item and is at most a window older.
- No event belongs to a list that was shown after it, whatever it names.
- Of events with one identity the first that was received counts: `event_id` within a subject, else subject, item, type,
  time and query, as the store tells events apart.
- Lists that were shown to a session before it was merged into a user belong to the user as well, for events that were
  received after the merge.
- An erasure removes the lists that its subject was shown until then, and the events received until then, those of
  sessions that had been merged into it as well.

`model/reference/attribution.py` says the same in plain loops.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.online.log_schema import TIME_OF, Kind
from model.online.made_traffic import Suspicion, mark_made

# How an event came to its list: it named the list, it named the request, by item and time; or it has none.
NAMED, BY_REQUEST, INFERRED, UNMATCHED = "named", "by_request", "inferred", "unmatched"
MARKS = (NAMED, BY_REQUEST, INFERRED, UNMATCHED)

# What the join needs of a list.
LIST_COLUMNS = ("list_id", "request_id", "subject", "time_ms", "items")

# Stands for the list as a whole where an event may have no item; ids have no control characters.
_WHOLE = "\x00"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a log is read.

    Attributes:
        window_ms: How much older than an event that names neither list nor request its list may be.
        suspicion: What traffic counts as made.
    """

    window_ms: int = 30 * 60_000
    suspicion: Suspicion = field(default_factory=Suspicion)


@dataclass(frozen=True, slots=True)
class Attributed:
    """Lists, and what came of them.

    Attributes:
        lists: The exposures, each once, with `owner` (the subject that they belong to in the end), `viewed_ms` (the
            first impression; null if none) and `made` (whether their traffic looks made).
        outcomes: The events, each once: their own fields, with `owner` (since `merged_ms`, if that is not null),
            `named_list_id` (the list that they name), `list_id` and `position` (from 1) of the list that they belong
            to, `mark`, and `made` (why they look made; null if they do not).
        counts: Rows left out: `duplicate_lists`, `duplicate_events`, `erased_lists`, `erased_events`.
    """

    lists: pl.DataFrame
    outcomes: pl.DataFrame
    counts: Mapping[str, int]


def attribute(
    exposures: pl.DataFrame,
    events: pl.DataFrame,
    merges: pl.DataFrame,
    erased: pl.DataFrame,
    reading: Reading | None = None,
    *,
    views_reported: bool | None = None,
) -> Attributed:
    """Joins exposures and events.

    Args:
        exposures: At least the columns `LIST_COLUMNS`; others stay with their list.
        events: The columns of `log_schema`, in the order in which they were received where `received_ms` is equal.
        merges: The columns of `log_schema`.
        erased: The columns of `log_schema`.
        reading: How the log is read.
        views_reported: Whether the clients say what was viewed; None finds out from these events.
    """
    reading = reading or Reading()
    gone = _last_erasures(erased)
    shown = _owned(exposures, merges, "time_ms").with_columns(owner=owner_of_lists("owner"))
    lists, erased_lists = _kept(shown, gone, "time_ms")
    lists, duplicate_lists = _first(lists, ["list_id"])
    happened, erased_events = _kept(_owned(events, merges, "received_ms"), gone, "received_ms")
    happened, duplicate_events = _first(_with_identity(happened), _IDENTITY)
    happened = happened.drop(_IDENTITY).with_row_index("row")
    outcomes = _joined(happened, _Shown.of(lists), reading.window_ms)
    lists = lists.drop("merged_ms").join(_first_views(outcomes), on="list_id", how="left", maintain_order="left")
    lists, outcomes = mark_made(lists, outcomes, reading.suspicion, views_reported)
    counts = {
        "duplicate_lists": duplicate_lists,
        "duplicate_events": duplicate_events,
        "erased_lists": erased_lists,
        "erased_events": erased_events,
    }
    return Attributed(lists, outcomes, counts)


def without_erased(kind: Kind, rows: pl.DataFrame, merges: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    """Returns rows of the log without those that were erased, by the rules of `attribute`.

    Args:
        kind: What the rows are.
        rows: With the columns `subject`, the time of the kind, and for merges `into`.
        merges: The columns of `log_schema`.
        erased: The columns of `log_schema`.
    """
    if kind == "erased":
        return rows
    time, gone = TIME_OF[kind], _last_erasures(erased)
    if kind != "merges":
        kept, _ = _kept(_owned(rows, merges, time), gone, time)
        return kept.drop("owner", "merged_ms")
    user = gone.rename({"subject": "into", "erased_ms": "__into_erased"})
    both = rows.join(gone, on="subject", how="left", maintain_order="left")
    both = both.join(user, on="into", how="left", maintain_order="left")
    over = pl.max_horizontal("erased_ms", "__into_erased") >= pl.col(time)
    return both.filter(~over.fill_null(value=False)).drop("erased_ms", "__into_erased")


def owner_of_lists(column: str) -> pl.Expr:
    """Returns who lists belong to: a list that was made for nobody belongs to itself."""
    return pl.when(pl.col(column) == "").then("list_id").otherwise(column)


_IDENTITY = ["__subject", "__id", "__item", "__type", "__time", "__query"]


def _last_erasures(erased: pl.DataFrame) -> pl.DataFrame:
    return erased.group_by("subject").agg(erased_ms=pl.col("erased_ms").max())


def _owned(rows: pl.DataFrame, merges: pl.DataFrame, time: str) -> pl.DataFrame:
    """Adds `owner` and `merged_ms`: the user that a session's row belongs to, from the first merge after it on."""
    rows = rows.with_row_index("__row")
    later = merges.select("subject", "merged_ms", owner="into", __at="merged_ms")
    later = later.unique(["subject", "merged_ms"], keep="first", maintain_order=True).sort("__at")
    owned = rows.sort(time).join_asof(
        later, left_on=time, right_on="__at", by="subject", strategy="forward", check_sortedness=False
    )
    owned = owned.with_columns(owner=pl.coalesce("owner", "subject")).sort("__row")
    return owned.drop("__row", "__at", strict=False)


def _kept(rows: pl.DataFrame, gone: pl.DataFrame, time: str) -> tuple[pl.DataFrame, int]:
    """Leaves out rows that were erased, and says how many."""
    both = rows.join(gone, on="subject", how="left", maintain_order="left").join(
        gone.rename({"subject": "owner", "erased_ms": "__owner_erased"}), on="owner", how="left", maintain_order="left"
    )
    own = pl.col("erased_ms") >= pl.col(time)
    merged = pl.col("merged_ms").is_not_null() & (pl.col("__owner_erased") >= pl.col("merged_ms"))
    kept = both.filter(~(own.fill_null(value=False) | merged.fill_null(value=False)))
    return kept.drop("erased_ms", "__owner_erased"), len(rows) - len(kept)


def _first(rows: pl.DataFrame, key: list[str]) -> tuple[pl.DataFrame, int]:
    kept = rows.unique(key, keep="first", maintain_order=True)
    return kept, len(rows) - len(kept)


def _with_identity(events: pl.DataFrame) -> pl.DataFrame:
    """Adds what tells events apart, in the order in which they were received."""
    named = pl.col("event_id").is_not_null() & (pl.col("event_id") != "")
    unnamed = {"__item": "item_id", "__type": "type", "__time": "time_ms", "__query": "query"}
    return events.sort("received_ms", maintain_order=True).with_columns(
        __subject=pl.when(named).then("owner").otherwise("subject"),
        __id=pl.when(named).then("event_id"),
        **{name: pl.when(~named).then(column) for name, column in unnamed.items()},
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """What lists show: a row for each item, and one for the list as a whole.

    Attributes:
        own: By the subject that the list was shown to.
        merged: By the user that the list belongs to since a merge.
    """

    own: pl.DataFrame
    merged: pl.DataFrame

    @classmethod
    def of(cls, lists: pl.DataFrame) -> _Shown:
        base = lists.select(
            "list_id", "request_id", "subject", "owner", "merged_ms", "items", shown_ms=pl.col("time_ms")
        )
        items = (
            base.with_columns(position=pl.int_ranges(1, pl.col("items").list.len() + 1, dtype=pl.Int32))
            .explode("items", "position", empty_as_null=False)
            .rename({"items": "item"})
        )
        whole = base.drop("items").with_columns(item=pl.lit(_WHOLE), position=pl.lit(None, pl.Int32))
        rows = pl.concat([items, whole.select(items.columns)]).sort("shown_ms", "list_id")
        own = rows.drop("owner", "merged_ms").rename({"subject": "viewer"})
        merged = rows.filter(pl.col("merged_ms").is_not_null()).drop("subject").rename({"owner": "viewer"})
        return cls(own, merged)


def _joined(events: pl.DataFrame, shown: _Shown, window_ms: int) -> pl.DataFrame:
    """Adds `named_list_id`, `list_id`, `position` and `mark` to events."""
    events = events.rename({"list_id": "named_list_id"})
    whole = (pl.col("type") == "impression") & pl.col("item_id").is_null()
    asked = events.select(
        "row",
        "named_list_id",
        "request_id",
        "time_ms",
        "received_ms",
        viewer="subject",
        item=pl.when(whole).then(pl.lit(_WHOLE)).otherwise("item_id"),
    ).filter(pl.col("item").is_not_null())
    names = pl.col("named_list_id").is_not_null()
    requests = ~names & pl.col("request_id").is_not_null()
    named = asked.filter(names).drop("request_id").rename({"named_list_id": "list_id"})
    found = [
        _newest(named, shown, ["list_id"]).with_columns(mark=pl.lit(NAMED)),
        _newest(asked.filter(requests), shown, ["request_id"]).with_columns(mark=pl.lit(BY_REQUEST)),
        _newest(
            asked.filter(~names & ~requests & (pl.col("item") != _WHOLE)), shown, [], window_ms=window_ms
        ).with_columns(mark=pl.lit(INFERRED)),
    ]
    return events.join(pl.concat(found), on="row", how="left", maintain_order="left").with_columns(
        mark=pl.col("mark").fill_null(UNMATCHED)
    )


def _newest(asked: pl.DataFrame, shown: _Shown, keys: list[str], window_ms: int | None = None) -> pl.DataFrame:
    """Returns `row`, `list_id`, `position` of the newest list that each event can belong to.

    Args:
        asked: Events.
        shown: What lists show.
        keys: What list and event must have in common besides viewer and item.
        window_ms: How much older than the event the list may be; None for any age.
    """
    by = [*keys, "viewer", "item"]
    # What is a key is not in the result a second time, and `list_id` may be one.
    right = shown.own.select(*by, "position", "shown_ms", __list="list_id", __at="shown_ms")
    own = (
        asked.sort("time_ms")
        .join_asof(
            right,
            left_on="time_ms",
            right_on="__at",
            by=by,
            strategy="backward",
            tolerance=window_ms,
            check_sortedness=False,
        )
        .filter(pl.col("__list").is_not_null())
        .select("row", "shown_ms", "position", list_id="__list")
    )
    both = pl.concat([own, _newest_merged(asked, shown.merged, by, window_ms).select(own.columns)])
    return both.sort("shown_ms", "list_id").unique("row", keep="last", maintain_order=True).drop("shown_ms")


def _newest_merged(asked: pl.DataFrame, merged: pl.DataFrame, by: Sequence[str], window_ms: int | None) -> pl.DataFrame:
    """The same among lists of merged sessions.

    Two times must fit, that of the list and that of the merge, so a join by the nearest time does not do. There are few
    such lists: this walks back from each event to the first that fits.
    """
    rows = list(_merged_rows(asked, merged, by, window_ms)) if len(merged) and len(asked) else []
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "row": asked.schema["row"],
        "shown_ms": pl.Int64,
        "list_id": pl.String,
        "position": pl.Int32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _merged_rows(
    asked: pl.DataFrame, merged: pl.DataFrame, by: Sequence[str], window_ms: int | None
) -> Iterator[tuple[int, int, str, int | None]]:
    shelves: dict[tuple[str, ...], list[tuple[int, str, int | None, int]]] = defaultdict(list)
    wanted = asked.join(merged.select(by).unique(), on=list(by), how="semi")
    for row in merged.join(wanted.select(by).unique(), on=list(by), how="semi", maintain_order="left").to_dicts():
        shelves[tuple(row[name] for name in by)].append(
            (row["shown_ms"], row["list_id"], row["position"], row["merged_ms"])
        )
    for event in wanted.to_dicts():
        shelf = shelves[tuple(event[name] for name in by)]
        time = event["time_ms"]
        for place in range(bisect_right(shelf, time, key=lambda one: one[0]) - 1, -1, -1):
            shown_ms, list_id, position, merged_ms = shelf[place]
            if window_ms is not None and shown_ms < time - window_ms:
                break
            if merged_ms <= event["received_ms"]:
                yield event["row"], shown_ms, list_id, position
                break


def _first_views(outcomes: pl.DataFrame) -> pl.DataFrame:
    seen = outcomes.filter((pl.col("type") == "impression") & pl.col("list_id").is_not_null())
    return seen.group_by("list_id").agg(viewed_ms=pl.col("time_ms").min())
