"""Thread layouts on a CPU: threads in a run × concurrent callers, with one shared session or one each."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.common.report import spread
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob
from service.engine.placement import usable_cores

ROUNDS = 5


@dataclass
class Layout:
    """`callers` threads decode at once, in runs of `threads` threads, on engines that they share or own."""

    threads: int
    callers: int
    engines: list[Engine]
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    taken_ms: list[float] = field(default_factory=list)

    def round(self, jobs: Sequence[DecodeJob], seconds: float) -> None:
        """Decode `jobs` again and again from every caller for about `seconds`."""
        gate = threading.Barrier(self.callers)

        def call(caller: int) -> tuple[int, list[float]]:
            engine = self.engines[caller % len(self.engines)]
            taken: list[float] = []
            engine.decode(jobs)
            gate.wait()
            until = time.perf_counter() + seconds
            while not taken or time.perf_counter() < until:
                began = time.perf_counter()
                engine.decode(jobs)
                taken.append((time.perf_counter() - began) * 1000.0)
            return len(taken), taken

        began, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self.callers) as pool:
            results = list(pool.map(call, range(self.callers)))
        lists = sum(n for n, _ in results) * len(jobs)
        self.rates.append(lists / (time.perf_counter() - began))
        self.cpu_ms.append((time.process_time() - cpu) * 1000.0 / lists)
        self.taken_ms += [ms for _, taken in results for ms in taken]

    def figures(self, batch: int) -> dict[str, Any]:
        """Returns the figures of the layout."""
        return {
            "threads": self.threads,
            "callers": self.callers,
            "engines": len(self.engines),
            "batch": batch,
            "lists_per_s": round(float(np.median(self.rates)), 1),
            "cpu_ms_per_list": round(float(np.median(self.cpu_ms)), 4),
            "ms": spread(self.taken_ms),
        }


def measure(artifact: Path, batches: Mapping[int, Sequence[DecodeJob]], seconds: float) -> list[dict[str, Any]]:
    """Measures every layout in turn, round after round, so that other work of the machine affects all of them alike."""
    cores = max(2, usable_cores())
    shapes = [(1, 1, 1), (cores, 1, 1), (1, cores, 1), (cores, cores, 1), (1, cores, cores)]
    layouts = [
        Layout(threads, callers, [Engine.open(artifact, device="cpu", threads=threads) for _ in range(engines)])
        for threads, callers, engines in shapes
    ]
    found = []
    for batch, jobs in batches.items():
        for layout in layouts:
            layout.rates, layout.cpu_ms, layout.taken_ms = [], [], []
        for _ in range(ROUNDS):
            for layout in layouts:
                layout.round(jobs, seconds)
        found += [layout.figures(batch) for layout in layouts]
    return found
