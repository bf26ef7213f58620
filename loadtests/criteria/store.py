"""Criterion 5: the memory of a user in Redis, and its bound under a flood."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import redis

from loadtests.harness.bench import (
    PATIENT,
    Bench,
    batches,
    event,
    events_request,
    history,
    load,
    recommend_request,
    warm,
)
from loadtests.harness.served_process import Served, serve
from loadtests.load.open_loop_driver import closed_now
from loadtests.load.replay import send_beforehand
from service.artifact.artifact import Artifact

BLOB_BYTES, LOG_BYTES = 16 * 1024, 28 * 1024
USERS = 10_000
FLOOD = 20_000
FLOODED = "user-of-the-flood"
_KEY = re.compile(rb"\{[us]:(.*?)\}:(\w+)")
_PART = 500


def run(bench: Bench) -> None:
    """Records the largest blob and the largest log over all users, and the memory of a flooded user.

    The users have as many events as the model can see, with 16-character ids. No catalogue contains these ids, so a few
    more users have known items: their blobs count too.
    """
    artifact = Artifact.open(bench.artifact)
    users, field = bench.some(USERS, 200), artifact.receptive_field
    growth: list[dict[str, Any]] = []
    with serve(bench.artifact, **PATIENT) as service:
        store = redis.Redis.from_url(service.redis_url)
        done = 0
        for target in sorted({users // 100, users // 10, users // 3, users}):
            load(bench, service.url, f"users {done}–{target}", list(batches(_full_logs(range(done, target), field))), 4)
            warm(bench, service.url, [_name(n) for n in range(done, target)])
            done = target
            growth.append(_point(service, store, done))
        known = [f"known-user-{n:06d}" for n in range(users // 20)]
        load(bench, service.url, "users of known items", list(batches(_known(known, artifact, field))), 4)
        warm(bench, service.url, known)
        _flood(bench, service)
        sizes = measure(store)
        flooded = sum(sum(found.pop(FLOODED, [])) for found in sizes.values())
        store.close()
    states = [size for found in sizes["state"].values() for size in found]
    logs = [sum(found) for name, found in sizes["events"].items() if name not in known]
    _record(bench, sizes, states, logs, flooded, growth)


def _record(
    bench: Bench,
    sizes: Mapping[str, Mapping[str, Sequence[int]]],
    states: Sequence[int],
    logs: Sequence[int],
    flooded: int,
    growth: Sequence[Mapping[str, Any]],
) -> None:
    bench.row("5 redis blob", max(states), "bytes", at_most=BLOB_BYTES)
    bench.row("5 redis log", max(logs), "bytes", at_most=LOG_BYTES)
    bench.row("5 redis flood", flooded, "bytes", at_most=BLOB_BYTES + LOG_BYTES)
    others = {
        kind: _spread([sum(found) for found in by.values()])
        for kind, by in sizes.items()
        if kind not in ("state", "events") and by
    }
    flood = {"events": bench.some(FLOOD, 2000), "bytes": flooded, "limit": BLOB_BYTES + LOG_BYTES}
    measured = {"blob_bytes": _spread(states), "log_bytes": _spread(logs), "other_keys_bytes": others}
    bench.save("redis", {"users": len(logs), **measured, "flood": flood, "growth": growth})


def measure(store: redis.Redis) -> dict[str, dict[str, list[int]]]:
    """Returns the bytes of every key by MEMORY USAGE over all its elements, by kind of key and by user."""
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


def _name(user: int) -> str:
    return f"log-user-{user:07d}"


def _known(names: Sequence[str], artifact: Artifact, field: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    items = list(artifact.catalogue.item_ids)
    for name in names:
        yield from history(name, rng.choice(items, field).tolist())


def _full_logs(users: Sequence[int], field: int) -> Iterator[dict[str, Any]]:
    """Loads as many events as the model can see; ids of items, events and users have 16 characters."""
    now = int(time.time() * 1000) - 3_600_000
    for user in users:
        for n in range(field):
            number = user * field + n
            item, mark = f"item{number % 100_000:012d}", f"event{number:011d}"
            yield event(_name(user), item, now + n * 1000, event_id=mark)


def _flood(bench: Bench, service: Served) -> None:
    """Sends thousands of events of one user with 16-character ids, and asks for lists in between."""
    now = int(time.time() * 1000) - 3_600_000
    total = bench.some(FLOOD, 2000)
    bodies = []
    for start in range(0, total, _PART):
        numbers = range(start, start + _PART)
        clicks = [event(FLOODED, f"item{n:012d}", now + n, event_id=f"event{n:011d}") for n in numbers]
        bodies += [events_request(clicks), recommend_request(FLOODED, budget_ms=2000)]
    load(bench, service.url, "a flood of one user", bodies, 2)
    send_beforehand(service.url, [recommend_request(FLOODED, budget_ms=2000)])


def _point(service: Served, store: redis.Redis, users: int) -> dict[str, Any]:
    """Measures one point of the curve over users: latency over random users, memory of the store and of the service."""
    rng = np.random.default_rng(users)
    asked = [recommend_request(_name(int(n))) for n in rng.integers(0, users, 400)]
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
