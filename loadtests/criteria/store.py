"""Criterion 5: what a user takes in Redis, and that no flood takes more."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import redis

from export.artifact import Artifact
from loadtests.criteria.bench import PATIENT, Bench, ask, batches, event, history, load, tell, warm
from loadtests.drive import closed_now
from loadtests.replay import taken
from loadtests.server import Served, serve

BLOB_BYTES, LOG_BYTES = 16 * 1024, 28 * 1024
USERS = 10_000
# Known items, more than the network's window, so that a state is as large as it gets.
STATE_EVENTS = 60
FLOOD = 20_000
FLOODED = "user-of-the-flood"
_KEY = re.compile(rb"\{[us]:(.*?)\}:(\w+)")
_PART = 500


def run(bench: Bench) -> None:
    """Records the largest blob and the largest log over all users, and what a flooded user takes.

    As many users again as have real items have logs of 16-character ids, which no catalogue holds: their logs are
    measured, and the blobs of both.
    """
    artifact = Artifact.open(bench.artifact)
    items, field = list(artifact.catalogue.item_ids), artifact.receptive_field
    users = bench.some(USERS, 200)
    growth: list[dict[str, Any]] = []
    with serve(bench.artifact, **PATIENT) as service:
        store = redis.Redis.from_url(service.redis_url)
        done = 0
        for target in sorted({users // 100, users // 10, users // 3, users}):
            names = [f"state-user-{n:06d}" for n in range(done, target)]
            load(bench, service.url, f"users {done}–{target}", list(batches(_known(names, items))), 4)
            warm(bench, service.url, names)
            done = target
            growth.append(_point(service, store, done))
        load(bench, service.url, "logs", list(batches(_full_logs(users, field))), 4)
        _flood(bench, service)
        sizes = measure(store)
        flooded = sum(sum(found.pop(FLOODED, [])) for found in sizes.values())
        store.close()
    states = [size for found in sizes["state"].values() for size in found]
    logs = [sum(found) for name, found in sizes["events"].items() if name.startswith("log-user-")]
    bench.row("5 redis blob", max(states), "bytes", at_most=BLOB_BYTES)
    bench.row("5 redis log", max(logs), "bytes", at_most=LOG_BYTES)
    bench.row("5 redis flood", flooded, "bytes", at_most=BLOB_BYTES + LOG_BYTES)
    bench.save(
        "redis",
        {
            "users": users,
            "receptive_field": field,
            "blob_bytes": _spread(states),
            "log_bytes": _spread(logs),
            "flood": {"events": bench.some(FLOOD, 2000), "bytes": flooded, "limit": BLOB_BYTES + LOG_BYTES},
            "other_keys_bytes": {
                kind: _spread([sum(found) for found in by.values()])
                for kind, by in sizes.items() if kind not in ("state", "events") and by
            },
            "growth": growth,
        },
    )  # fmt: skip


def measure(store: redis.Redis) -> dict[str, dict[str, list[int]]]:
    """Bytes of every key by MEMORY USAGE over all its elements, by kind of key and by user."""
    sizes: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    keys = list(store.scan_iter(count=5000))
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        with store.pipeline(transaction=False) as pipeline:
            for key in part:
                pipeline.memory_usage(key, samples=0)
            for key, size in zip(part, pipeline.execute(), strict=True):
                if size is not None and (named := _KEY.search(key)) is not None:
                    sizes[named[2].decode()][named[1].decode()].append(int(size))
    return sizes


def _known(names: Sequence[str], items: Sequence[str]) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for name in names:
        yield from history(name, rng.choice(items, STATE_EVENTS).tolist())


def _full_logs(users: int, field: int) -> Iterator[dict[str, Any]]:
    """As many events as the model can see, with items, and events, of 16-character ids."""
    now = int(time.time() * 1000) - 3_600_000
    for user in range(users):
        for n in range(field):
            number = user * field + n
            yield event(f"log-user-{user:07d}", f"item{number % 100_000:012d}", now + n * 1000,
                        event_id=f"event{number:011d}")  # fmt: skip


def _flood(bench: Bench, service: Served) -> None:
    """Thousands of events of one user, of 16-character ids; lists are asked for in between."""
    now = int(time.time() * 1000) - 3_600_000
    total = bench.some(FLOOD, 2000)
    bodies = []
    for start in range(0, total, _PART):
        numbers = range(start, start + _PART)
        clicks = [event(FLOODED, f"item{n:012d}", now + n, event_id=f"event{n:011d}") for n in numbers]
        bodies += [tell(clicks), ask(FLOODED, budget_ms=2000)]
    load(bench, service.url, "a flood of one user", bodies, 2)
    taken(service.url, [ask(FLOODED, budget_ms=2000)])


def _point(service: Served, store: redis.Redis, users: int) -> dict[str, Any]:
    """One point of the curve over users: latency over users at random, memory of the store and of the service."""
    rng = np.random.default_rng(users)
    asked = [ask(f"state-user-{int(n):06d}") for n in rng.integers(0, users, 400)]
    report = closed_now(service.url, asked, concurrency=1, skip=20)
    return {
        "users": users,
        "recommend_ms": report.routes["/recommend"].figures(),
        "full_share": report.share("full"),
        "redis_mib": round(int(store.info("memory")["used_memory"]) / 2**20, 2),
        "service_mib": round(service.rss_mib(), 1),
    }


def _spread(sizes: Sequence[int]) -> dict[str, float]:
    if not sizes:
        return {}
    return {"users": len(sizes), "mean": round(float(np.mean(sizes)), 1), "p50": float(np.percentile(sizes, 50)),
            "max": int(max(sizes))}  # fmt: skip
