"""Cross-check of our own driver with wrk."""

from __future__ import annotations

from loadtests.harness.bench import Bench
from loadtests.harness.served_process import serve
from loadtests.load import wrk
from loadtests.load.replay import Replay, read


def run(bench: Bench) -> None:
    """Saves `wrk.json`.

    Raises:
        LoadError: If wrk is not installed.
    """
    if bench.data is None:
        raise ValueError("wrk needs --data")
    replay = Replay(read(bench.data))
    with serve(bench.artifact) as service, bench.console.status("  wrk and our own driver, in turn"):
        found = wrk.compare(service.url, replay, seconds=bench.some(6, 2), rounds=bench.some(3, 1))
    for one in found["rows"]:
        bench.console.print(f"  {one['what']}: {one['rate']:g} requests/s, p99 {one['p99_ms']:g} ms", highlight=False)
    bench.save("wrk", found)
