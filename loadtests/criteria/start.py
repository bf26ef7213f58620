"""Criterion 7: start-up time, and the memory of a ready service."""

from __future__ import annotations

from loadtests.harness.bench import Bench, median
from loadtests.harness.served_process import serve


def run(bench: Bench) -> None:
    """Records the seconds from exec to the first 200 of /readyz, resident memory, and mapped files of torch."""
    times, resident, private, torch = [], [], [], 0
    starts = bench.some(7, 2)
    with bench.progress("starts", starts) as advance:
        for _ in range(starts):
            with serve(bench.artifact) as service:
                times.append(service.ready_s)
                resident.append(service.rss_mib())
                private.append(service.private_mib())
                torch = max(torch, len(service.maps("torch")))
            advance()
    bench.row("7 start", median(times), "s", at_most=3.0)
    bench.row("7 start memory", median(resident), "MiB resident")
    bench.row("7 start torch", torch, "mapped files", at_most=0)
    bench.save(
        "start",
        {
            "ready_s": [round(s, 3) for s in times],
            "resident_mib": [round(m, 1) for m in resident],
            "private_mib": [round(m, 1) for m in private],
        },
    )
