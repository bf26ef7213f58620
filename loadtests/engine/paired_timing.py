"""Times cases in turns, so that other work of the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

ROUND = 40
Timed = Callable[[int], object]


def paired(cases: Mapping[str, Timed], rounds: int, per_round: int = ROUND) -> dict[str, dict[str, float]]:
    """Times each case in turns: `per_round` calls of each, `rounds` times.

    Returns:
        Milliseconds: p50 and p95 of all calls, and p50 of the thread's processor time, which excludes other processes.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        for number in range(per_round):
            call(number)
    for round_ in range(rounds):
        order = list(cases.items())
        for name, call in order if round_ % 2 else order[::-1]:
            call(0)  # the others have displaced this case from the caches; that is not its time
            for number in range(per_round):
                began, began_cpu = time.perf_counter(), time.thread_time()
                call(number)
                cpu[name].append((time.thread_time() - began_cpu) * 1000.0)
                taken[name].append((time.perf_counter() - began) * 1000.0)
    return {
        name: {
            "p50": round(float(np.percentile(ms, 50)), 4),
            "p95": round(float(np.percentile(ms, 95)), 4),
            "cpu_p50": round(float(np.percentile(cpu[name], 50)), 4),
        }
        for name, ms in taken.items()
    }
