"""A random log as it would come into the streams, and what the files of a log must say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from loadtests.loop.random_logs import RandomLog, Row
from model.online.log_folder import LogFolder
from model.online.partitions import LogRange, attributed
from model.reference.attribution import attribute_plainly
from service.exposures.exposure import FORMAT, erased_entry, merged_entry, shard_of
from service.store.streams.log_streams import Entry, Shard, StreamName

WINDOW_MS = 30 * 60_000
FIELDS = ("subject", "item_id", "type", "time_ms", "event_id", "received_ms", "value", "query")


def entries(log: RandomLog, shards: int) -> Iterator[tuple[Shard, Entry]]:
    """Yields the entries of a log in the order of their times."""
    rows: list[tuple[int, int, list[tuple[Shard, Entry]]]] = [
        (row["time_ms"], 0, [_entry("exposures", row["subject"], row, shards)]) for row in log.exposures
    ]
    for row in log.merges:
        entry = merged_entry(row["subject"], row["into"], row["merged_ms"])
        rows.append((row["merged_ms"], 1, [(Shard("events", shard_of(row["into"], shards)), entry)]))
    rows += [(row["received_ms"], 2, [_entry("events", row["subject"], row, shards)]) for row in log.events]
    for row in log.erased:
        entry, number = erased_entry(row["subject"], row["erased_ms"]), shard_of(row["subject"], shards)
        rows.append((row["erased_ms"], 3, [(Shard(stream, number), entry) for stream in ("exposures", "events")]))
    for _, _, some in sorted(rows, key=lambda one: one[:2]):
        yield from some


def _entry(stream: StreamName, subject: str, row: Row, shards: int) -> tuple[Shard, Entry]:
    body = orjson.dumps({**row, "k": len(row["items"])} if stream == "exposures" else row)
    return Shard(stream, shard_of(subject, shards)), ("v", FORMAT, "s", subject, "e", body)


def expected(log: RandomLog) -> tuple[set[str], Counter[tuple[Any, ...]]]:
    """Returns the lists and the outcomes by plain loops."""
    lists, outcomes = attribute_plainly(log.exposures, log.events, log.merges, log.erased, WINDOW_MS)
    return set(lists), Counter(
        (*(log.events[one.event][name] for name in FIELDS), one.list_id, one.position, one.mark) for one in outcomes
    )


def expected_of(rows: Mapping[str, Sequence[Row]]) -> tuple[set[str], Counter[tuple[Any, ...]]]:
    """Returns the lists and the outcomes of rows by kind, by plain loops."""
    return expected(RandomLog(*(list(rows.get(kind, ())) for kind in ("exposures", "events", "merges", "erased"))))


def found(folder: LogFolder) -> tuple[set[str], Counter[tuple[Any, ...]]]:
    """Returns the lists and the outcomes that the files of a log give."""
    lists, outcomes = set[str](), Counter[tuple[Any, ...]]()
    for part in attributed(LogRange(folder)):
        lists |= set(part.lists["list_id"])
        outcomes.update(part.outcomes.select(*FIELDS, "list_id", "position", "mark").iter_rows())
    return lists, outcomes
