"""Peak memory of a log that is imported and counted in parts.

    python -m loadtests.fleet.streamed_logs --events 12000000

Makes a log of a shop as CSV files: users come back, items have a long tail, one event in fifty is written
twice. Imports it and counts item-CF and transitions, in a process that does nothing else, and reads the
largest resident memory that this process ever had (`VmHWM`). A second run on a third of the log says how
memory and time grow; what follows for a larger log is printed as what it is, an extrapolation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from loadtests.common import results
from loadtests.fleet import fleet_criteria

# Events of a file, and of a user on average.
_FILE, _OF_USER = 5_000_000, 20
_START_MS, _STEP_MS = 1_600_000_000_000, 40
_PART = 3
_GIB = 1 << 30
# Of each user: where the first event stands and how many there are, and these in order while blocks are cut.
_BYTES_OF_USER = 72


def main() -> None:
    """Runs both logs, or one of them as the process that is measured, and records the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=12_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="where the log and the data set are written; a new one by default")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    if asked.measured:
        print(json.dumps(_import_and_count(asked.folder)))  # noqa: T201 - what the measuring process reads
        return
    with tempfile.TemporaryDirectory(prefix="streamed-", dir=asked.folder) as scratch:
        small = _measured(Path(scratch) / "small", asked.events // _PART, asked.items)
        large = _measured(Path(scratch) / "large", asked.events, asked.items)
    for told in (small, large):
        print(_sentence(told))  # noqa: T201 - the report of the command
    print(_extrapolated(small, large))  # noqa: T201 - the report of the command
    if asked.dry:
        return
    command = f"python -m loadtests.fleet.streamed_logs --events {asked.events}"
    rows = [
        fleet_criteria.row(fleet_criteria.STREAMED_MEMORY, large["peak"] / _GIB, command),
        results.row("logs: events of the largest log that was streamed", large["events"], "events", command),
        results.row("logs: its size as text", large["bytes"] / _GIB, "GiB", command),
        results.row("logs: peak memory at a third of it", small["peak"] / _GIB, "GiB", command),
    ]
    for row in rows:
        results.record(results.FLEET, row)


def _measured(folder: Path, events: int, items: int) -> dict[str, Any]:
    """Makes a log, and has another process import and count it."""
    size = make_log(folder / "log", events, items)
    command = [sys.executable, "-m", "loadtests.fleet.streamed_logs", "--measured", "--folder", str(folder)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - ours
    return {**told, "rows": events, "bytes": size}


def make_log(folder: Path, events: int, items: int) -> int:
    """Writes the log, and returns its size in bytes."""
    folder.mkdir(parents=True)
    rng, users = np.random.default_rng(1), max(1, events // _OF_USER)
    for number, begin in enumerate(range(0, events, _FILE)):
        n = min(_FILE, events - begin)
        when = _START_MS + (begin + np.arange(n)) * _STEP_MS + rng.integers(-500, 500, n)
        table = pl.DataFrame(
            {
                # Newer users come in as the log goes on.
                "user_id": ((begin + n) / events * users * rng.random(n)).astype(np.int64),
                "item_id": (items * rng.random(n) ** 3).astype(np.int64),
                "timestamp": when // 1000 * 1000,
                "event_type": rng.choice(["view", "cart", "purchase"], n, p=[0.8, 0.12, 0.08]),
            }
        ).with_columns(pl.format("u{}", "user_id").alias("user_id"), pl.format("sku-{}", "item_id").alias("item_id"))
        twice = rng.random(n) < 0.02
        table[np.repeat(np.arange(n), 1 + twice)].write_csv(folder / f"part-{number:04d}.csv")
    return sum(path.stat().st_size for path in folder.iterdir())


def _import_and_count(folder: Path) -> dict[str, Any]:
    from model.data.formats import Format, ImportRequest
    from model.data.streamed.importing import import_streamed
    from model.signals.counted.counting import count_data_set

    began = time.monotonic()
    told = import_streamed(ImportRequest(str(folder / "log"), Format.CSV), folder / "data")
    imported, imported_peak = time.monotonic(), _peak()
    count_data_set(folder / "data", folder / "counts")
    return {
        "events": told["report"]["events"],
        "users": told["report"]["users"],
        "import_s": imported - began,
        "count_s": time.monotonic() - imported,
        "import_peak": imported_peak,
        "peak": _peak(),
    }


def _peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say how much memory was used")


def _sentence(told: Mapping[str, Any]) -> str:
    return (
        f"{told['events']:,} events of {told['users']:,} users, {told['bytes'] / _GIB:.2f} GiB of text: peak "
        f"{told['peak'] / _GIB:.2f} GiB ({told['import_peak'] / _GIB:.2f} after the import), "
        f"{told['import_s']:.0f} s to import, {told['count_s']:.0f} s to count"
    )


def _extrapolated(small: Mapping[str, Any], large: Mapping[str, Any], times: int = 100) -> str:
    """What a longer log of the same kind would take: parts keep their sizes, so its users alone need more memory."""
    slope = (large["import_s"] + large["count_s"] - small["import_s"] - small["count_s"]) / (
        large["events"] - small["events"]
    )
    seconds = slope * large["events"] * times
    peak = large["peak"] + _BYTES_OF_USER * large["users"] * (times - 1)
    return (
        f"extrapolated, not measured: {large['events'] * times:,} events would take {peak / _GIB:.1f} GiB and "
        f"{seconds / 3600:.1f} hours here"
    )


if __name__ == "__main__":
    main()
