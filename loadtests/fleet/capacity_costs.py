"""Costs of single parts of the service, from which capacity is predicted; results in `capacity_costs.json`.

    python -m loadtests.fleet.capacity_costs --artifact DIR --data DATA [--quick]

Nothing here searches a highest rate. Measured are processor times of parts with one worker that is never short of work
for others, sizes of keys and messages, and how much slower two runs at once are than one.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import redis
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.criteria.cpu import decode_jobs
from loadtests.criteria.store import measure
from loadtests.harness.bench import (
    PATIENT,
    Bench,
    batches,
    event,
    events_request,
    history,
    load,
    real_histories,
    recommend_request,
    settle,
    warm,
)
from loadtests.harness.scraped import scraped
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import Arrival, closed_now
from loadtests.load.replay import read
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.engine.decoding import Decoding
from service.engine.engine import Engine

NAME = "capacity_costs"
COMMAND = "python -m loadtests.fleet.capacity_costs --artifact ARTIFACT --data DATA"
IN_FLIGHT = (1, 8, 32)
BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (10, 50, 200, 1000)
USERS, LEAST, LONGEST = 200, 50, 100
_RUNS = 'gpt4rec_batch_size_count{graph="decoder"}'
_ROWS = 'gpt4rec_batch_size_sum{graph="decoder"}'

app = typer.Typer(add_completion=False)


@app.command()
def costs(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="Data set of the artefact: its users ask.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Do little work, to try the command.")] = False,
) -> None:
    """Measures what the parts of a list and of an event cost."""
    bench = Bench(artifact, data, COMMAND, Console(stderr=True), out, quick)
    histories = real_histories(read(data), USERS, least=LEAST, longest=LONGEST)
    found: dict[str, Any] = {"decoder": decoder_costs(bench, histories)}
    bench.console.print("  decoder measured")
    found["shared"] = shared_slowdown(artifact, 3.0 if not quick else 0.5)
    bench.console.print(f"  two runs at once take {found['shared']:.2f} × as long as one")
    found.update(list_costs(bench, histories))
    found.update(user_costs(bench))
    bench.save(NAME, {"unit": "µs of processor time", "users": len(histories), **found})


def decoder_costs(bench: Bench, histories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns microseconds of a run of the decoder by rows, for the beam of the load and for a sampled list."""
    engine = Engine.open(bench.artifact, threads=1)
    jobs = decode_jobs(engine, list(histories.values()))
    sampled = [
        replace(job, request=replace(job.request, decoding=Decoding("top_p", top_p=0.9), seed=seed))
        for seed, job in enumerate(jobs)
    ]
    rounds = bench.some(60, 5)
    return {
        name: {str(size): _run_us(engine, rows[:size], rounds) for size in BATCHES}
        for name, rows in (("beam", jobs), ("sampled", sampled))
    }


def _run_us(engine: Engine, jobs: Sequence[Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = time.thread_time()
        for listed in engine.decode(jobs):
            if isinstance(listed, Exception):
                raise listed
        taken.append(time.thread_time() - began)
    return round(1e6 * median(taken[1:]), 2)


def _decode_for(artifact: str, seconds: float, start: float) -> float:
    """Decodes lists from a start until an end; returns the processor seconds of a run."""
    engine = Engine.open(Path(artifact), threads=1)
    ids = list(engine.artifact.catalogue.item_ids)
    jobs = decode_jobs(engine, [[ids[n % len(ids)] for n in range(first, first + 50)] for first in range(8)])
    engine.decode(jobs)
    time.sleep(max(0.0, start - time.time()))
    began, runs = time.thread_time(), 0
    until = time.time() + seconds
    while time.time() < until:
        engine.decode(jobs)
        runs += 1
    return (time.thread_time() - began) / max(1, runs)


def shared_slowdown(artifact: Path, seconds: float, processes: int = 2) -> float:
    """Returns how much longer a run of the decoder takes while another process does the same, at least 1."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        alone, together = [], []
        for _ in range(3):
            start = time.time() + 4.0
            alone.append(pool.submit(_decode_for, str(artifact), seconds, start).result())
            start = time.time() + 4.0
            both = [pool.submit(_decode_for, str(artifact), seconds, start) for _ in range(processes)]
            together.append(sum(one.result() for one in both) / processes)
    return round(max(1.0, median(together) / median(alone)), 3)


def list_costs(bench: Bench, histories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns costs of a list by requests in flight, of events, and the bytes of a list on the wire."""
    names = list(histories)
    with serve(bench.artifact, **PATIENT) as served:
        load(bench, served.url, "histories", list(batches(one for n, i in histories.items() for one in history(n, i))))
        warm(bench, served.url, names)
        requests = bench.some(3000, 200)
        asked = [recommend_request(names[n % len(names)]) for n in range(requests)]
        lists = {str(at_once): _of_lists(bench, served, asked, at_once) for at_once in IN_FLIGHT}
        items = list(Artifact.open(bench.artifact).catalogue.item_ids)
        events = {str(size): _of_events(served, names, items, bench.some(2000, 100), size) for size in (1, 50)}
        return {
            "lists": lists,
            "events": events,
            "wire": _wire(served, asked[0]),
            "service_mib": {"resident": round(served.rss_mib(), 1), "private": round(served.private_mib(), 1)},
        }


def _spent(processes: Mapping[str, Process]) -> dict[str, float]:
    return {name: process.cpu_s() for name, process in processes.items()}


def _processes(served: Served) -> dict[str, Process]:
    if served.valkey is None:
        raise RuntimeError("the service has no server of its own")
    return {"service": served, "store": served.valkey}


def _of_lists(bench: Bench, served: Served, asked: Sequence[Arrival], at_once: int) -> dict[str, float]:
    """Returns medians over blocks: microseconds a list of service, Redis and sender, and the rows of a run."""
    processes, blocks = _processes(served), []
    closed_now(served.url, asked[: len(asked) // 4], concurrency=at_once)
    for _ in range(bench.some(5, 1)):
        settle(*processes.values())
        before, sender, counted = _spent(processes), time.process_time(), scraped(served.url)
        report = closed_now(served.url, asked, concurrency=at_once)
        sender = time.process_time() - sender
        settle(*processes.values())
        after, now = _spent(processes), scraped(served.url)
        if report.errors or report.share("full") < 1.0:
            raise RuntimeError(f"not every answer is a list of the model: {report.errors}")
        one = {name: 1e6 * (after[name] - before[name]) / len(asked) for name in processes}
        rows, runs = (now[name] - counted.get(name, 0.0) for name in (_ROWS, _RUNS))
        blocks.append({**one, "sender": 1e6 * sender / len(asked), "batch": rows / runs, "rate": report.answered_rate})
    return {name: round(median(block[name] for block in blocks), 3) for name in blocks[0]}


def _of_events(served: Served, names: Sequence[str], items: Sequence[str], total: int, size: int) -> dict[str, float]:
    """Returns microseconds an event of the service, encoding included, and of Redis, with so many in a request."""
    processes, now = _processes(served), int(time.time() * 1000) - 1_800_000
    rng = np.random.default_rng(size)
    clicks = [
        event(names[n % len(names)], items[int(rng.integers(len(items)))], now + n * 10 + size) for n in range(total)
    ]
    bodies = [events_request(clicks[start : start + size]) for start in range(0, total, size)]
    settle(*processes.values())
    before = _spent(processes)
    report = closed_now(served.url, bodies, concurrency=8)
    settle(*processes.values())
    if report.errors:
        raise RuntimeError(f"events failed: {report.errors}")
    return {name: round(1e6 * (spent - before[name]) / total, 3) for name, spent in _spent(processes).items()}


def _wire(served: Served, request: Arrival) -> dict[str, float]:
    """Returns the bytes of a request and its answer as they are sent, and those of Redis for a list."""
    parts = urlsplit(served.url)
    head = (
        f"POST {request.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(request.body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    store = redis.Redis.from_url(served.redis_url)
    try:
        before = store.info("stats")
        repeats = 50
        answer = 0
        for _ in range(repeats):
            with socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=5.0) as connection:
                connection.sendall(head + request.body)
                answer = sum(len(part) for part in _received(connection))
        after = store.info("stats")
    finally:
        store.close()
    moved = sum(int(after[key]) - int(before[key]) for key in ("total_net_input_bytes", "total_net_output_bytes"))
    return {"request": len(head) + len(request.body), "answer": answer, "store": round(moved / repeats, 1)}


def _received(connection: socket.socket) -> Iterator[bytes]:
    while part := connection.recv(65536):
        yield part


def user_costs(bench: Bench) -> dict[str, Any]:
    """Returns the bytes of a user in Redis by events of the history, all keys of the user together."""
    found = {}
    items = list(Artifact.open(bench.artifact).catalogue.item_ids)
    rng = np.random.default_rng(0)
    users = bench.some(200, 10)
    for length in LENGTHS:
        with serve(bench.artifact, **PATIENT) as served:
            names = [f"user-{n:011d}" for n in range(users)]
            chosen = [history(name, rng.choice(items, length).tolist()) for name in names]
            load(bench, served.url, f"{length} events", list(batches(one for clicks in chosen for one in clicks)))
            warm(bench, served.url, names)
            store = redis.Redis.from_url(served.redis_url)
            sizes = measure(store)
            store.close()
        kinds = {kind: sum(map(sum, by.values())) / users for kind, by in sizes.items()}
        found[str(length)] = {"all": round(sum(kinds.values()), 1), **{k: round(v, 1) for k, v in kinds.items()}}
    return {"user_bytes": found}


if __name__ == "__main__":
    run_command(app)
