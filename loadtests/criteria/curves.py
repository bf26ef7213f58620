"""How the engine's costs grow with the history, k, the beam, concurrency and the batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from loadtests.common.hdr import Latencies
from loadtests.criteria.cpu import decode_jobs
from loadtests.harness.bench import PATIENT, Bench, batches, history, load, recommend_request, warm
from loadtests.harness.served_process import Served, serve
from loadtests.load.open_loop_driver import Arrival, closed_now
from service.artifact.features import EventArrays
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob

HISTORIES = (50, 100, 200, 500, 1000, 2000)
KS = (1, 5, 10, 20, 50, 100)
BEAMS = (1, 2, 5, 10)
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
USERS = 20


def run(bench: Bench) -> None:
    """Saves `curves.json`: a list of points for each curve."""
    engine = Engine.open(bench.artifact, threads=1)
    items = list(engine.artifact.catalogue.item_ids)
    lengths = HISTORIES[:2] if bench.quick else HISTORIES
    with serve(bench.artifact, **PATIENT) as service:
        rng = np.random.default_rng(0)
        earlier = [
            one
            for length in lengths
            for n in range(USERS)
            for one in history(f"h{length}-{n}", rng.choice(items, length).tolist())
        ]
        load(bench, service.url, "histories", list(batches(earlier)))
        warm(bench, service.url, [f"h{length}-{n}" for length in lengths for n in range(USERS)])
        curves = _served(bench, service, lengths)
    curves["batch"] = _batches(bench, engine, items)
    bench.save("curves", {"unit": "ms", "curves": curves})


def _served(bench: Bench, service: Served, lengths: Sequence[int]) -> dict[str, Any]:
    """Measures /recommend at concurrency 1, except for the curve over concurrency; users take turns."""
    n = bench.some(400, 40)

    def point(asked: Callable[[str], Arrival], length: int, concurrency: int = 1) -> dict[str, Any]:
        requests = [asked(f"h{length}-{number % USERS}") for number in range(n * min(concurrency, 8))]
        report = closed_now(service.url, requests, concurrency=concurrency, skip=20)
        return {
            "ms": report.routes["/recommend"].figures(),
            "rate": round(report.answered_rate, 1),
            "full_share": round(report.share("full"), 4),
            "errors": sum(report.errors.values()),
        }

    base = lengths[0]
    cases: list[tuple[str, str, int, Callable[[], dict[str, Any]]]] = [
        *(("history", "events", length, partial(point, recommend_request, length)) for length in lengths),
        *(("k", "k", k, partial(point, _policy(k=k), base)) for k in KS),
        *(("beam", "beam_width", beam, partial(point, _policy(beam=beam), base)) for beam in BEAMS),
        *(
            ("concurrency", "concurrency", at_once, partial(point, recommend_request, base, at_once))
            for at_once in CONCURRENCIES
        ),
    ]
    curves: dict[str, Any] = {}
    with bench.progress("curves", len(cases)) as advance:
        for curve, axis, at, measured in cases:
            curves.setdefault(curve, []).append({axis: at, **measured()})
            advance()
    return curves


def _policy(**policy: int) -> Callable[[str], Arrival]:
    return lambda name: recommend_request(name, **policy)


def _batches(bench: Bench, engine: Engine, items: Sequence[str]) -> list[dict[str, Any]]:
    """Runs the engine without HTTP and Redis on one thread: a decode of W 64, and one new event for every row."""
    rng = np.random.default_rng(1)
    seconds = bench.some(1000, 50) / 1000.0
    histories = [rng.choice(items, 50).tolist() for _ in range(max(BATCHES))]
    decoding = [
        replace(job, request=replace(job.request, decoding=Decoding("beam", 5)))
        for job in decode_jobs(engine, histories)
    ]
    one, now = np.zeros(1, np.int64), np.array([int(time.time() * 1000)], np.int64)
    first, second = EventArrays(one, one, now - 60_000), EventArrays(one, one, now)
    states = engine.encode([EncodeJob(events=first, from_start=True)] * max(BATCHES))
    encoding = [EncodeJob(state=_checked(state), events=second, from_start=False) for state in states]
    points = []
    with bench.progress("batches", len(BATCHES)) as advance:
        for batch in BATCHES:
            decode = _timed(partial(engine.decode, decoding[:batch]), seconds)
            encode = _timed(partial(engine.encode, encoding[:batch]), seconds)
            points.append(
                {
                    "batch": batch,
                    "decode_ms": decode.figures(),
                    "decode_ms_a_row": round((decode.at(50) or 0.0) / batch, 4),
                    "encode_ms": encode.figures(),
                    "encode_ms_a_row": round((encode.at(50) or 0.0) / batch, 4),
                }
            )
            advance()
    return points


def _timed(run: Callable[[], Sequence[Any]], seconds: float) -> Latencies:
    for result in run():
        _checked(result)
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000.0)
    return Latencies(taken)


def _checked(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result
