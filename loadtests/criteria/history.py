"""Criterion 4: the cost of a long history for a list and for an event."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from loadtests.harness.bench import (
    PATIENT,
    Bench,
    batches,
    event,
    events_request,
    history,
    load,
    median,
    recommend_request,
    settle,
    warm,
)
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import closed_now
from service.artifact.artifact import Artifact

SHORT, LONG = 50, 2000
USERS = 100


def run(bench: Bench) -> None:
    """Records `4 history p50` and `4 history event`.

    Both are figures of long histories ÷ those of short ones, measured in rounds that alternate in one run.
    """
    rng = np.random.default_rng(0)
    items = list(Artifact.open(bench.artifact).catalogue.item_ids)
    users = bench.some(USERS, 10)
    long = bench.some(LONG, 300)
    groups = {length: [f"h{length}-{n}" for n in range(users)] for length in (SHORT, long)}
    with serve(bench.artifact, **PATIENT) as service:
        for length, names in groups.items():
            chosen = (rng.choice(items, length).tolist() for _ in names)
            earlier = [one for name, own in zip(names, chosen, strict=True) for one in history(name, own)]
            load(bench, service.url, f"histories of {length}", list(batches(earlier)))
            warm(bench, service.url, names)
        lists = _lists(bench, service, list(groups.values()))
        events = _events(bench, service, list(groups.values()), items)
    bench.row("4 history p50", median(b / a for a, b in lists), "×", at_most=1.1)
    bench.row("4 history event", median(b / a for a, b in events), "×", at_most=1.2)
    lengths = list(groups)
    bench.save(
        "history",
        {
            "lengths": lengths,
            "recommend_p50_ms": [round(median(pair[n] for pair in lists), 4) for n in (0, 1)],
            "event_cpu_us": [round(median(pair[n] for pair in events), 1) for n in (0, 1)],
            "rounds": {"recommend_p50_ms": lists, "event_cpu_us": events},
        },
    )


def _lists(bench: Bench, service: Served, groups: Sequence[Sequence[str]]) -> list[tuple[float, float]]:
    """Measures p50 of /recommend in milliseconds at concurrency 1, for short and long histories, a pair per round."""
    rounds, requests = bench.some(11, 2), bench.some(300, 30)
    found = []
    with bench.progress("/recommend", rounds) as advance:
        for _ in range(rounds):
            pair = []
            for names in groups:
                asked = [recommend_request(names[n % len(names)]) for n in range(requests)]
                report = closed_now(service.url, asked, concurrency=1, skip=10)
                if report.errors or report.share("full") < 1.0:
                    raise RuntimeError(f"some answers were not full lists: {report.errors} {report.reasons}")
                pair.append(report.routes["/recommend"].at(50) or 0.0)
            found.append((pair[0], pair[1]))
            advance()
    return found


def _events(
    bench: Bench, service: Served, groups: Sequence[Sequence[str]], items: Sequence[str]
) -> list[tuple[float, float]]:
    """Measures processor microseconds of an event, one per request, until its state is written; store included."""
    rounds, requests = bench.some(9, 2), bench.some(200, 20)
    processes: list[Process] = [service, *([service.valkey] if service.valkey else [])]
    rng = np.random.default_rng(1)
    found = []
    with bench.progress("/events", rounds) as advance:
        for _ in range(rounds):
            pair = []
            for names in groups:
                now = int(time.time() * 1000)
                bodies = [
                    events_request([event(names[n % len(names)], items[int(rng.integers(len(items)))], now + n)])
                    for n in range(requests)
                ]
                settle(*processes)
                before = sum(process.cpu_s() for process in processes)
                report = closed_now(service.url, bodies, concurrency=1)
                if report.errors:
                    raise RuntimeError(f"the service did not accept all events: {report.errors}")
                settle(*processes)
                pair.append((sum(process.cpu_s() for process in processes) - before) / requests * 1e6)
            found.append((pair[0], pair[1]))
            advance()
    return found
