"""Whether Spark and one machine make the same of a log, row for row.

    python -m loadtests.fleet.spark_equal --log FILE --random 20000

Writes FILE, the log of a data set, as CSV, and makes a random log with ties, repeated rows, missing ids and times
beside it. Each is imported, split and counted on one machine and on Spark in local mode; rows that only one of them
has, or has at another place, are counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from model.data.formats import Format, ImportRequest
from model.data.importing import import_dataset
from model.data.streamed.engine import Sizes
from model.signals.counted.counting import CountSizes, count_data_set
from model.signals.counted.range_counts import SplitRule

_NOW_MS = 1_700_000_000_000
_SIZES = Sizes(piece_bytes=1 << 19, partitions=3, block=20_000)
_COUNT_SIZES = CountSizes(range_rows=30_000, pairs=1 << 20)
_DATA = ("events", "items", "users")
_SPLITS = ("leave_one_out", "time")
_COUNTS = ("items", "pairs", "transitions", "split")


def main() -> None:
    """Compares the logs, and records the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="events.parquet of a data set")
    parser.add_argument("--random", type=int, default=20_000, help="rows of the random log")
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--split", choices=_SPLITS, nargs="+", default=_SPLITS)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory(prefix="spark-equal-") as scratch:
        for name, log in _logs(asked.log, asked.random):
            folder = Path(scratch) / name
            folder.mkdir()
            log.write_csv(folder / "log.csv")
            found = _compared(folder, asked.master, asked.split)
            print(f"{name}: {log.height:,} rows of the log; different: {json.dumps(found)}")  # noqa: T201 - the report
            different += sum(found.values())
    print(f"{different} rows differ")  # noqa: T201 - the report of the command
    if not asked.dry:
        command = f"python -m loadtests.fleet.spark_equal --log FILE --random {asked.random}"
        results.record(results.FLEET, fleet_criteria.row(fleet_criteria.SPARK_DIFFERENT, different, command))


def _logs(given: Path | None, rows: int) -> Iterator[tuple[str, pl.DataFrame]]:
    if given is not None:
        yield "given", pl.read_parquet(given)
    rng = np.random.default_rng(23)
    ids = rng.integers(0, max(2, rows // 15), rows)
    table = pl.DataFrame(
        {
            "user_id": [f"u{user}" if user % 97 else "" for user in ids],
            "item_id": [f"i{item}" if item % 89 else "" for item in (400 * rng.random(rows) ** 2).astype(int)],
            # Few moments, so that most events share theirs with another.
            "timestamp": [1_600_000_000 + int(s) if s % 41 else None for s in rng.integers(0, 60, rows)],
            "event_type": rng.choice(["view", "buy", "Impression", ""], rows),
            "value": np.round(rng.normal(4, 2, rows), 1),
            "scene": rng.choice(["home", "search", ""], rows),
        }
    )
    yield "random", pl.concat([table, table.sample(rows // 5, seed=1)])


def _compared(folder: Path, master: str, splits: Sequence[str]) -> dict[str, int]:
    """Returns how many rows of each table differ."""
    from model.spark.counting import count_on_spark
    from model.spark.importing import import_on_spark

    request = ImportRequest(str(folder / "log.csv"), Format.CSV)
    import_dataset(request, now_ms=_NOW_MS).save(folder / "one")
    import_on_spark(request, folder / "spark", master, now_ms=_NOW_MS, sizes=_SIZES)
    found = {name: _different(folder / "one", folder / "spark", name) for name in _DATA}
    one, other = (json.loads((folder / name / "meta.json").read_text("utf-8")) for name in ("one", "spark"))
    found["fingerprints"] = int(one["fingerprint"] != other["fingerprint"])
    for kind in splits:
        rule = SplitRule("time" if kind == "time" else "leave_one_out", validation_users=500)
        here, there = folder / f"counts-{kind}", folder / f"spark-counts-{kind}"
        count_data_set(folder / "one", here, rule, "bm25", sizes=CountSizes())
        count_on_spark(folder / "spark", there, master, rule, "bm25", sizes=_COUNT_SIZES)
        found |= {f"{kind}: {name}": _different(here, there, name) for name in _COUNTS}
        for file in ("item_cf.npz", "transitions.npz"):
            found[f"{kind}: {file}"] = int((here / file).read_bytes() != (there / file).read_bytes())
    return found


def _different(one: Path, other: Path, name: str) -> int:
    """Rows of a table that are not the same at the same place, and those that only one of the two has."""
    first, second = (pl.read_parquet(folder / f"{name}.parquet") for folder in (one, other))
    if first.schema != second.schema:
        return max(first.height, second.height)
    rows = min(first.height, second.height)
    same = [first[column].head(rows).eq_missing(second[column].head(rows)) for column in first.columns]
    equal = pl.DataFrame([column.alias(str(n)) for n, column in enumerate(same)]).select(pl.all_horizontal(pl.all()))
    return abs(first.height - second.height) + rows - int(equal.to_series().sum())


if __name__ == "__main__":
    main()
