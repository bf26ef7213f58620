"""Items as a shop changes them over HTTP: changes go to Redis, and every process follows them from there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from service.catalogue.item_fields import fields_of
from service.common.request_errors import Conflict, InvalidRequest, NotFound, RequestError
from service.metrics.service_metrics import Metrics
from service.store.items import WRITTEN_AT_ONCE, ItemStore, ItemWrite, StoredItem, Written

Op = Literal["put", "patch", "disable", "enable", "delete"]

LINES_MAX = 10_000
# Of the fields of one item, as JSON.
FIELDS_BYTES_MAX = 32_768
# A patch that others keep overtaking is given up.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one item.

    Attributes:
        item_id: The item.
        op: What is done: `put` replaces the stored fields, `patch` some of them.
        fields: The fields by name; in a patch, None takes one away.
        expected: The version that the item must have; 0 for none, None for any.
    """

    item_id: str
    op: Op
    fields: Mapping[str, Any] = field(default_factory=dict)
    expected: int | None = None


class ShopItems:
    """Makes changes of items."""

    def __init__(self, store: ItemStore, metrics: Metrics, *, most: int) -> None:
        """Uses the store.

        Args:
            store: Redis.
            metrics: Counts the changes.
            most: Items that may be stored.
        """
        self._store, self._metrics, self._most = store, metrics.catalogue, most

    async def change(self, change: Change, actor: str) -> dict[str, Any]:
        """Makes one change.

        Args:
            change: The change.
            actor: Who makes it.

        Returns:
            The answer: outcome, version, and whether the item is disabled.

        Raises:
            Conflict: The item has another version, or there is no room for another item.
            InvalidRequest: The fields are too large, or do not fit those that are stored.
            NotFound: Nothing is stored of the item that could be deleted or enabled.
            StoreUnavailable: Redis does not answer.
        """
        result = (await self.apply([change], actor))[0]
        if isinstance(result, RequestError):
            raise result
        match result.outcome:
            case "missing":
                raise NotFound("nothing is stored of an item with this id")
            case "conflict":
                now = f"has the version {result.version}" if result.version else "is not stored"
                raise Conflict(f"the item {now}; read it again and repeat the change")
            case "full":
                raise Conflict(self._full())
        return _told(change.item_id, result)

    async def apply(self, changes: Sequence[Change], actor: str) -> list[Written | RequestError]:
        """Makes changes in their order, each by itself.

        Returns:
            What became of each: what was written, or the error that says why not.

        Raises:
            StoreUnavailable: Redis does not answer. Some of the changes may have been made; repeating them is safe.
        """
        results: list[Written | RequestError] = []
        for some in _without_repeats(changes):
            results += await self._apply(some, actor)
        for result in results:
            self._metrics.item_changes.labels("refused" if isinstance(result, RequestError) else result.outcome).inc()
        return results

    async def _apply(self, changes: Sequence[Change], actor: str) -> list[Written | RequestError]:
        """Makes changes of different items."""
        results: list[Written | RequestError | None] = [None] * len(changes)
        for _ in range(_TRIES):
            left = [place for place, result in enumerate(results) if result is None]
            if not left:
                break
            writes = await self._writes([changes[place] for place in left])
            sent = [(place, write) for place, write in zip(left, writes, strict=True) if isinstance(write, ItemWrite)]
            for place, write in zip(left, writes, strict=True):
                if isinstance(write, RequestError):
                    results[place] = write
            written = await self._store.write([write for _, write in sent], actor, self._most) if sent else []
            for (place, _), one in zip(sent, written, strict=True):
                change = changes[place]
                overtaken = one.outcome == "conflict" and change.op == "patch" and change.expected is None
                results[place] = None if overtaken else one
        return [Conflict("others keep changing this item; repeat the change") if r is None else r for r in results]

    async def _writes(self, changes: Sequence[Change]) -> list[ItemWrite | RequestError]:
        """Returns what to write; a patch is merged with what is stored, and holds for that version only."""
        patched = [change.item_id for change in changes if change.op == "patch"]
        stored = dict(zip(patched, await self._store.read(patched), strict=True))
        writes: list[ItemWrite | RequestError] = []
        for change in changes:
            write = _write(change, stored.get(change.item_id))
            fault = _fault(write.fields)
            writes.append(write if fault is None else InvalidRequest(fault))
        return writes

    async def import_lines(self, raw: bytes, read: Callable[[bytes], Change], actor: str) -> dict[str, Any]:
        """Makes the changes of an import, one JSON object a line, and reports on each line.

        Args:
            raw: The lines.
            read: Reads a line; raises RequestError if it is not valid.
            actor: Who makes the changes.

        Raises:
            InvalidRequest: There are no lines, or too many.
            StoreUnavailable: Redis does not answer. Repeating the import is safe: what is stored already is unchanged.
        """
        lines = [(number, line) for number, line in enumerate(raw.split(b"\n"), start=1) if line.strip()]
        if not lines:
            raise InvalidRequest("the import has no lines; send one JSON object a line")
        if len(lines) > LINES_MAX:
            raise InvalidRequest(f"the import has {len(lines)} lines; send at most {LINES_MAX} at a time")
        reports: list[dict[str, Any]] = []
        for start in range(0, len(lines), WRITTEN_AT_ONCE):
            reports += await self._import(lines[start : start + WRITTEN_AT_ONCE], read, actor)
        return {"lines": reports, "counts": dict(Counter(report["outcome"] for report in reports))}

    async def _import(
        self, lines: Sequence[tuple[int, bytes]], read: Callable[[bytes], Change], actor: str
    ) -> list[dict[str, Any]]:
        parsed = await asyncio.to_thread(lambda: [_parsed(line, read) for _, line in lines])
        changes = [one for one in parsed if isinstance(one, Change)]
        results = iter(await self.apply(changes, actor))
        reports = []
        for (number, _), one in zip(lines, parsed, strict=True):
            item_id = one.item_id if isinstance(one, Change) else None
            result = next(results) if isinstance(one, Change) else one
            if isinstance(one, RequestError):
                self._metrics.item_changes.labels("refused").inc()
            reports.append({"line": number, **self._report(item_id, result)})
        return reports

    def _report(self, item_id: str | None, result: Written | RequestError) -> dict[str, Any]:
        if isinstance(result, RequestError):
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['message']}" for fault in result.errors or ()
            )
            return {"item_id": item_id, "outcome": "refused", "version": None, "error": faults or result.public_detail}
        error = {"conflict": "the item has another version", "full": self._full()}.get(result.outcome)
        return {"item_id": item_id, "outcome": result.outcome, "version": result.version or None, "error": error}

    def _full(self) -> str:
        return f"{self._most} items are stored, and there is room for no more: raise GPT4REC_ITEMS_MAX, or delete some"


def _told(item_id: str, result: Written) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "outcome": result.outcome,
        "version": result.version or None,
        "disabled": result.disabled,
    }


def _write(change: Change, stored: StoredItem | None) -> ItemWrite:
    if change.op != "patch":
        return ItemWrite(change.item_id, change.op, change.fields, change.expected)
    before = {} if stored is None else dict(stored.fields)
    merged = {name: value for name, value in {**before, **change.fields}.items() if value is not None}
    version = 0 if stored is None else stored.version
    return ItemWrite(change.item_id, "put", merged, version if change.expected is None else change.expected)


def _fault(fields: Mapping[str, Any]) -> str | None:
    """Returns why fields cannot be stored; those of a patch may be no item beside those that are stored already."""
    if len(orjson.dumps(fields)) > FIELDS_BYTES_MAX:
        return f"the fields are larger than {FIELDS_BYTES_MAX:,} bytes of JSON"
    try:
        fields_of(fields)
    except ValueError as error:
        return f"with what is stored of the item, {error}"
    return None


def _parsed(line: bytes, read: Callable[[bytes], Change]) -> Change | RequestError:
    try:
        return read(line)
    except RequestError as error:
        return error


def _without_repeats(changes: Sequence[Change]) -> list[list[Change]]:
    """Splits changes into runs that are short enough for one write, in none of which an item comes twice."""
    runs: list[list[Change]] = []
    seen: set[str] = set()
    for change in changes:
        if not runs or change.item_id in seen or len(runs[-1]) == WRITTEN_AT_ONCE:
            runs.append([])
            seen = set()
        runs[-1].append(change)
        seen.add(change.item_id)
    return runs
