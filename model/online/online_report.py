"""What lists earned, by model, segment, strategy, rung, arm and position: the report of `gpt4rec report online`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from model.online.attribution import MARKS, Attributed
from model.online.grouped import CONFIDENCE, OTHER, GroupSums, Rate, largest
from model.online.made_traffic import RATE, UNSEEN
from model.online.outcomes import REWARDS, by_list, by_position, genuine
from model.online.partitions import LogRange, attributed

# Dimension: column of the lists.
DIMENSIONS: Mapping[str, str] = {
    "model": "model_version",
    "segment": "segment",
    "strategy": "strategy",
    "rung": "rung",
}
ALL, ARM, POSITION = "all", "arm", "position"
TOP = 20
_NONE = "(none)"
_PER = 1000
_INTERVALS = "ratio estimator over subjects, linearised (Cochran 1977, ch. 6; Deng, Knoblich and Lu 2018), Student's t"


@dataclass(frozen=True, slots=True)
class Options:
    """What the report is about.

    Attributes:
        top: The most groups of a dimension; the others are one group.
        made: Whether traffic that looks made counts as well.
        viewed: Whether only lists count that somebody viewed.
    """

    top: int = TOP
    made: bool = False
    viewed: bool = False


def online_report(span: LogRange, options: Options | None = None) -> dict[str, Any]:
    """Reads a log, and returns click-through, conversion and value per thousand lists, as JSON can hold it.

    Raises:
        LogError: The log cannot be read.
    """
    options = options or Options()
    named = _names(span, options.top)
    measures = [*REWARDS, "clicked"]
    sums = {dimension: GroupSums(measures) for dimension in (ALL, *DIMENSIONS, ARM)}
    sums[POSITION] = GroupSums(REWARDS)
    totals: Counter[str] = Counter()
    for part in attributed(span, [*DIMENSIONS.values(), "arms"]):
        _count(totals, part)
        kept = genuine(part, made=options.made, viewed=options.viewed)
        positions = by_position(kept.outcomes)
        rows = by_list(kept.lists, positions)
        totals["counted"] += len(rows)
        for dimension, table in _grouped(rows, positions, named).items():
            sums[dimension].add(table)
    return {
        "log": span.log.url,
        "from_ms": span.from_ms,
        "until_ms": span.until_ms,
        "lists": _lists(totals),
        "events": _events(totals),
        "per_lists": _PER,
        "confidence": CONFIDENCE,
        "intervals": _INTERVALS,
        "groups": {name: [_row(name, *group) for group in one.rates()] for name, one in sums.items()},
    }


def _names(span: LogRange, top: int) -> dict[str, set[str]]:
    """The largest groups of each dimension."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*DIMENSIONS, ARM, POSITION)}
    columns = [*DIMENSIONS.values(), "arms", "items"]
    for lists in span.log.read("exposures", columns, from_ms=span.from_ms, until_ms=span.until_ms):
        for name, column in DIMENSIONS.items():
            _add(counts[name], lists.select(group=pl.col(column).fill_null(_NONE)))
        _add(counts[ARM], _arms(lists))
        _add(counts[POSITION], _positions(lists))
    return {name: largest(counter.items(), top) for name, counter in counts.items()}


def _add(counter: Counter[str], groups: pl.DataFrame) -> None:
    counter.update(dict(groups.group_by("group").len().iter_rows()))


def _arms(lists: pl.DataFrame) -> pl.DataFrame:
    """The lists once for each experiment that they took part in."""
    rows = lists.explode("arms", empty_as_null=False).filter(pl.col("arms").is_not_null())
    arm = pl.col("arms").struct
    return rows.with_columns(group=pl.format("{}={}", arm.field("experiment"), arm.field("arm")))


def _positions(lists: pl.DataFrame) -> pl.DataFrame:
    """The lists once for each position."""
    numbered = lists.with_columns(position=pl.int_ranges(1, pl.col("items").list.len() + 1, dtype=pl.Int32))
    rows = numbered.drop("items").explode("position", empty_as_null=False).filter(pl.col("position").is_not_null())
    return rows.with_columns(group=pl.col("position").cast(pl.String))


def _grouped(rows: pl.DataFrame, positions: pl.DataFrame, named: Mapping[str, set[str]]) -> dict[str, pl.DataFrame]:
    """Rows with `group` and `owner` for each dimension."""
    tables = {ALL: rows.with_columns(group=pl.lit(ALL))}
    for dimension, column in DIMENSIONS.items():
        tables[dimension] = rows.with_columns(group=pl.col(column).fill_null(_NONE))
    tables[ARM] = _arms(rows)
    spread = _positions(rows.select("list_id", "owner", "items"))
    tables[POSITION] = spread.join(positions, on=["list_id", "position"], how="left").with_columns(
        pl.col(*REWARDS).fill_null(0.0)
    )
    for dimension, names in named.items():
        known = pl.col("group").is_in(sorted(names))
        tables[dimension] = tables[dimension].with_columns(group=pl.when(known).then("group").otherwise(pl.lit(OTHER)))
    return tables


def _count(totals: Counter[str], part: Attributed) -> None:
    totals.update(part.counts)
    totals["lists"] += len(part.lists)
    totals["viewed"] += part.lists["viewed_ms"].count()
    totals["made_lists"] += int(part.lists["made"].sum())
    totals["events"] += len(part.outcomes)
    for column in ("mark", "made"):
        counted = part.outcomes.group_by(column).len().iter_rows()
        totals.update({f"{column}:{value}": n for value, n in counted if value is not None})


def _lists(totals: Counter[str]) -> dict[str, int]:
    return {
        "served": totals["lists"],
        "viewed": totals["viewed"],
        "made": totals["made_lists"],
        "counted": totals["counted"],
        "duplicates": totals["duplicate_lists"],
        "erased": totals["erased_lists"],
    }


def _events(totals: Counter[str]) -> dict[str, Any]:
    return {
        "kept": totals["events"],
        "duplicates": totals["duplicate_events"],
        "erased": totals["erased_events"],
        "by_mark": {mark: totals[f"mark:{mark}"] for mark in MARKS},
        "made": {why: totals[f"made:{why}"] for why in (RATE, UNSEEN)},
    }


def _row(dimension: str, group: str, units: int, subjects: int, rates: dict[str, Rate]) -> dict[str, Any]:
    row: dict[str, Any] = {"group": group, "lists": units, "subjects": subjects}
    # At one position a list is clicked as often as the position is.
    clicked = rates["clicks"] if dimension == POSITION else rates["clicked"]
    row["click_through"] = asdict(clicked)
    return row | {name: asdict(rates[name].times(_PER)) for name in REWARDS}
