"""Criterion 1: processor time of a warm /recommend, relative to its unavoidable part.

The unavoidable part is a bare typed FastAPI route with the same models and sizes, and one decoder run at batch 1. The
three take turns, request by request, so that slow moments of the machine and cold caches affect all of them. The cost
of each in a loop of its own is recorded too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from loadtests.common import limit_criteria
from loadtests.criteria.client import Client
from loadtests.harness.bench import (
    PATIENT,
    Bench,
    K,
    batches,
    history,
    load,
    median,
    real_histories,
    recommend_request,
    settle,
    warm,
)
from loadtests.harness.served_process import Process, Served, serve, started
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import read, send_beforehand
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, EncodeJob, ListRequest

LIMIT = 1.5
USERS = 200
LEAST, LONGEST = 50, 100
# Sends requests to the service's URL and the bare route's, decodes as often; processor seconds of the decoder runs.
How = Callable[[str, str, Sequence[Arrival], Callable[[int], None]], Coroutine[Any, Any, float]]


def run(bench: Bench) -> None:
    """Records `1 cpu`, `1 cpu without Valkey` and `1 cpu in loops`, and the limits that they are held to now.

    `1 cpu` includes Valkey's time, since the store is part of the service.
    """
    if bench.data is None:
        raise ValueError("criterion cpu needs --data")
    histories = real_histories(read(bench.data), USERS, least=LEAST, longest=LONGEST)
    names = list(histories)
    engine = Engine.open(bench.artifact, threads=1)
    jobs = decode_jobs(engine, list(histories.values()))
    with tempfile.TemporaryDirectory() as folder, serve(bench.artifact, **PATIENT) as service:
        earlier = [one for name, items in histories.items() for one in history(name, items)]
        load(bench, service.url, "histories", list(batches(earlier)))
        warm(bench, service.url, names)
        answer = Path(folder) / "answer.json"
        answer.write_bytes(send_beforehand(service.url, [recommend_request(names[0])])[0])
        command = [sys.executable, "-m", "loadtests.criteria.bare", "--answer", str(answer)]
        with started(command, "/readyz", Path(folder) / "log") as (bare, bare_url, _):
            parts = (bench, service, Process(bare.pid), bare_url, names, partial(_decode, engine, jobs))
            turns, loops = _rounds(*parts, _in_turns), _rounds(*parts, _in_loops)
    _record(bench, turns, loops)


def decode_jobs(engine: Engine, histories: Sequence[Sequence[str]]) -> list[DecodeJob]:
    """Returns one decoder row for each history, as the service would build it: seen items excluded, beam 5, k 10."""
    index = {item: n for n, item in enumerate(engine.artifact.catalogue.item_ids)}
    items = [np.array([index[item] for item in one if item in index], np.int64) for one in histories]
    now = int(time.time() * 1000)
    encoding = [
        EncodeJob(
            events=EventArrays(one, np.zeros_like(one), now - np.arange(len(one), 0, -1, dtype=np.int64) * 60_000),
            from_start=True,
        )
        for one in items
    ]
    context = engine.artifact.vocabulary.context.encode({})
    jobs = []
    for state, one in zip(engine.encode(encoding), items, strict=True):
        if isinstance(state, Exception):
            raise state
        request = ListRequest(
            context=context, gap_ms=GAP_UNKNOWN, decoding=Decoding("beam", 5), k=K, excluded=np.unique(one)
        )
        jobs.append(DecodeJob(h=state.h, request=request))
    return jobs


def _decode(engine: Engine, jobs: Sequence[DecodeJob], number: int) -> None:
    """Runs the decoder once at batch 1."""
    (listed,) = engine.decode([jobs[number % len(jobs)]])
    if isinstance(listed, Exception):
        raise listed


def _rounds(
    bench: Bench,
    service: Served,
    bare: Process,
    bare_url: str,
    names: Sequence[str],
    decode: Callable[[int], None],
    how: How,
) -> list[dict[str, float]]:
    """Measures processor microseconds of each part, an entry per round; the first round is a warm-up and dropped."""
    requests, rounds = bench.some(600, 60), bench.some(11, 2)
    processes = {"service": service, "bare_route": bare, **({"valkey": service.valkey} if service.valkey else {})}
    asked = [recommend_request(names[n % len(names)]) for n in range(requests)]
    found = []
    with bench.progress("rounds", rounds + 1) as advance:
        for _ in range(rounds + 1):
            settle(*processes.values())
            before = {name: process.cpu_s() for name, process in processes.items()}
            decoding = uvloop.run(how(service.url, bare_url, asked, decode))
            settle(service)
            spent = {name: process.cpu_s() - before[name] for name, process in processes.items()}
            spent["decoder_run"] = decoding
            found.append({name: seconds / requests * 1e6 for name, seconds in spent.items()})
            advance()
    return found[1:]


async def _in_turns(url: str, bare_url: str, asked: Sequence[Arrival], decode: Callable[[int], None]) -> float:
    """Alternates the service, the bare route and one decoder run for every request.

    None of them has the caches to itself, as it would in a loop of its own.

    Returns:
        The processor seconds of the decoder.
    """
    service, bare = await Client(url).open(), await Client(bare_url).open()
    spent = 0.0
    for number, request in enumerate(asked):
        answer = await service.send(request)
        if answer["rung"] != "full":
            raise RuntimeError(f"a list from {answer['rung']}: {answer['reason']}")
        await bare.send(request)
        began = time.process_time()
        decode(number)
        spent += time.process_time() - began
    service.close()
    bare.close()
    return spent


async def _in_loops(url: str, bare_url: str, asked: Sequence[Arrival], decode: Callable[[int], None]) -> float:
    """Sends every request to the service, then every request to the bare route, then runs the decoder."""
    for where in (url, bare_url):
        client = await Client(where).open()
        for request in asked:
            await client.send(request)
        client.close()
    began = time.process_time()
    for number in range(len(asked)):
        decode(number)
    return time.process_time() - began


def _record(bench: Bench, turns: Sequence[dict[str, float]], loops: Sequence[dict[str, float]]) -> None:
    def ratio(entry: dict[str, float], *parts: str) -> float:
        return sum(entry.get(part, 0.0) for part in parts) / (entry["bare_route"] + entry["decoder_run"])

    in_turns, in_loops = (median(ratio(e, "service", "valkey") for e in rounds) for rounds in (turns, loops))
    bench.row("1 cpu", in_turns, "×", at_most=LIMIT)
    bench.row("1 cpu without Valkey", median(ratio(e, "service") for e in turns), "×")
    bench.row("1 cpu in loops", in_loops, "×")
    bench.limit(limit_criteria.CPU_IN_TURNS, in_turns)
    bench.limit(limit_criteria.CPU_IN_LOOPS, in_loops)
    medians, alone = (
        {part: round(median(entry[part] for entry in rounds), 1) for part in rounds[0]} for rounds in (turns, loops)
    )
    found = {"median": medians, "rounds": turns, "median_in_loops": alone, "rounds_in_loops": loops}
    bench.save("cpu", {"unit": "µs of processor time a request", "users": USERS, **found})
