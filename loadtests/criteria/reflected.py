"""Criterion 6: an acknowledged event is reflected in the next /recommend, on every replica.

Two services share one store. A trial clicks on the first item of the user's last list through one of them, and asks the
other one as soon as the click is acknowledged. The answer reflects the click if the item is gone from the list (seen
items are excluded), and if a list from the model equals the list that the first service gives afterwards, with plenty
of time: a list from an older state would differ. The click is dated half an hour back: the model reads
how long ago the last event was, and the time between the two answers must be negligible against that.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from loadtests.common.hdr import Latencies
from loadtests.criteria.client import Client
from loadtests.harness.bench import (
    MINUTE_MS,
    Bench,
    batches,
    event,
    events_request,
    history,
    load,
    real_histories,
    recommend_request,
    warm,
)
from loadtests.harness.served_process import serve
from loadtests.load.replay import read

TRIALS = 10_000
USERS = 400
# At once, on users of their own: as many clients as a small service has at a time.
CLIENTS = 2
_TIE = 1e-3


@dataclass(slots=True)
class Outcome:
    """`missed` trials by what was wrong with the answer; `reflected_ms` is from the acknowledgement to the answer."""

    trials: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    reflected_ms: list[float] = field(default_factory=list)


def run(bench: Bench) -> None:
    """Records the share of reflected events, and the time from the acknowledgement to the reflecting answer."""
    if bench.data is None:
        raise ValueError("criterion reflected needs --data")
    trials = bench.some(TRIALS, 200)
    histories = real_histories(read(bench.data), bench.some(USERS, 20), least=20, longest=100)
    with serve(bench.artifact) as one, serve(bench.artifact, "--redis", one.redis_url) as two:
        earlier = [each for name, items in histories.items() for each in history(name, items)]
        load(bench, one.url, "histories", list(batches(earlier)))
        warm(bench, two.url, list(histories))
        found = Outcome()
        with bench.progress("trials", trials) as advance:
            uvloop.run(_all((one.url, two.url), list(histories), trials, found, advance))
    latencies = Latencies(found.reflected_ms)
    share = 100.0 * (found.trials - sum(found.missed.values())) / found.trials
    bench.row("6 reflected", share, f"% of {found.trials}", at_least=100)
    bench.row("6 reflected p50", latencies.at(50) or 0.0, "ms")
    bench.row("6 reflected p99", latencies.at(99) or 0.0, "ms")
    bench.save(
        "reflected",
        {"trials": found.trials, "missed": dict(found.missed), "rungs": dict(found.rungs), "compared": found.compared,
         "users": len(histories), "clients": CLIENTS, "ack_to_reflected_ms": latencies.figures()},
    )  # fmt: skip


async def _all(urls: tuple[str, str], names: Sequence[str], trials: int, found: Outcome, advance: Any) -> None:
    parts = [names[n::CLIENTS] for n in range(CLIENTS)]
    await asyncio.gather(*(_client(urls, part, trials // CLIENTS, found, advance) for part in parts))


async def _client(urls: tuple[str, str], names: Sequence[str], trials: int, found: Outcome, advance: Any) -> None:
    replicas = [await Client(url).open() for url in urls]
    lists = {name: _ids(await replicas[0].send(recommend_request(name, budget_ms=2000))) for name in names}
    try:
        for number in range(trials):
            name = names[number % len(names)]
            # Which of them takes the event changes from trial to trial, and for every user.
            writer, reader = replicas if (number + number // len(names)) % 2 else replicas[::-1]
            lists[name] = await _trial(writer, reader, name, lists[name][0], found)
            advance()
    finally:
        for replica in replicas:
            replica.close()


async def _trial(writer: Client, reader: Client, name: str, item: str, found: Outcome) -> list[str]:
    """Runs one trial; returns the list that the next one clicks on."""
    await writer.send(events_request([event(name, item, int(time.time() * 1000) - 30 * MINUTE_MS)]))
    acknowledged = time.perf_counter()
    answer = await reader.send(recommend_request(name))
    found.reflected_ms.append((time.perf_counter() - acknowledged) * 1000.0)
    expected = await writer.send(recommend_request(name, budget_ms=2000))
    found.trials += 1
    found.rungs[answer["rung"]] += 1
    if item in _ids(answer):
        found.missed["the item is still in the list"] += 1
    elif answer["rung"] == expected["rung"] == "full":
        found.compared += 1
        if not _same(answer, expected):
            found.missed["the list is that of an older state"] += 1
    return _ids(expected)


def _same(one: Any, other: Any) -> bool:
    """Returns whether two lists have the same items in the same order, up to practically equal scores."""
    pairs = list(zip(one["items"], other["items"], strict=False))
    return len(one["items"]) == len(other["items"]) and all(
        a["item_id"] == b["item_id"] or abs(a["score"] - b["score"]) < _TIE for a, b in pairs
    )


def _ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
