"""Open-loop load on a running service: `python -m loadtests.open_loop --url http://127.0.0.1:8000`.

Requests are sent when they are due (Poisson arrivals), whether or not earlier ones were answered, and a latency counts
from the moment a request was due. A closed loop would wait with the service and hide exactly the slow answers
("coordinated omission").
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import typer
import uvloop

from loadtests.client import Answer, LoadError, Pool
from loadtests.report import publish, spread, table

MAX_ARRIVALS = 2_000_000
MAX_IN_FLIGHT = 5_000
BATCH = 500
# A generator that sends later than this is short of processor time, and its figures are its own.
LATE_SEND_MS = 5.0

RECOMMEND, EVENTS = "/recommend", "/events"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it is due (seconds from the start), and what it is."""

    due_s: float
    path: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`latency_ms` counts from the moment the request was due, `lag_ms` is how late it was sent."""

    path: str
    latency_ms: float
    lag_ms: float
    error: str | None = None
    source: str | None = None
    rung: str | None = None
    reason: str | None = None
    service_ms: float | None = None


def schedule(
    rng: np.random.Generator,
    *,
    rate: float,
    seconds: float,
    users: Sequence[str],
    items: Sequence[str],
    events_share: float,
    k: int,
    now_ms: int,
) -> list[Arrival]:
    """Poisson arrivals at `rate` a second for `seconds`; the same generator gives the same requests."""
    dues = np.cumsum(rng.exponential(1.0 / rate, int(rate * seconds * 1.5 + 20 * (rate * seconds) ** 0.5 + 20)))
    arrivals = []
    for number, due in enumerate(dues[dues < seconds].tolist()):
        user = users[int(rng.integers(len(users)))]
        if rng.random() < events_share:
            item = items[int(rng.integers(len(items)))]
            event = {"user_id": user, "item_id": item, "type": "click", "timestamp": now_ms + number}
            arrivals.append(Arrival(due, EVENTS, {"events": [event]}))
        else:
            arrivals.append(Arrival(due, RECOMMEND, {"user_id": user, "k": k}))
    return arrivals


async def run(pool: Pool, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends every arrival when it is due; beyond `MAX_IN_FLIGHT` open requests one is not sent, and counts as an
    error."""
    loop = asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    open_: set[asyncio.Task[None]] = set()
    began = loop.time()

    async def one(arrival: Arrival) -> None:
        due = began + arrival.due_s
        lag_ms = (loop.time() - due) * 1000.0
        try:
            answer = await pool.request("POST", arrival.path, arrival.body)
        except LoadError as error:
            outcomes.append(Outcome(arrival.path, (loop.time() - due) * 1000.0, lag_ms, error=str(error)))
        else:
            outcomes.append(_outcome(arrival, answer, (loop.time() - due) * 1000.0, lag_ms))

    for arrival in arrivals:
        wait = began + arrival.due_s - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        if len(open_) >= MAX_IN_FLIGHT:
            outcomes.append(Outcome(arrival.path, 0.0, 0.0, error="not sent: too many are open"))
            continue
        task = loop.create_task(one(arrival))
        open_.add(task)
        task.add_done_callback(open_.discard)
    await asyncio.gather(*open_)
    return outcomes


def _outcome(arrival: Arrival, answer: Answer, latency_ms: float, lag_ms: float) -> Outcome:
    if answer.status != 200 or not isinstance(answer.body, dict):
        return Outcome(arrival.path, latency_ms, lag_ms, error=str(answer.status))
    body = answer.body
    return Outcome(
        arrival.path, latency_ms, lag_ms, None, body.get("source"), body.get("rung"), body.get("reason"),
        body.get("latency_ms"),
    )  # fmt: skip


def summary(outcomes: Sequence[Outcome], took_s: float, asked_rate: float) -> dict[str, Any]:
    """The figures of a run; latencies in milliseconds."""

    def part(chosen: Sequence[Outcome]) -> dict[str, Any]:
        answered = [o.latency_ms for o in chosen if o.error is None]
        return {
            "requests": len(chosen),
            "errors": len(chosen) - len(answered),
            "latency_ms": spread(answered),
        }

    lists = [o for o in outcomes if o.path == RECOMMEND and o.error is None]
    kinds = Counter((o.source, o.rung, o.reason or "") for o in lists)
    return {
        "asked_rate": asked_rate,
        "achieved_rate": round(sum(o.error is None for o in outcomes) / took_s, 2),
        "seconds": round(took_s, 3),
        "send_lag_ms": spread([o.lag_ms for o in outcomes]),
        "service_ms": spread([o.service_ms for o in lists if o.service_ms is not None]),
        "routes": {path: part([o for o in outcomes if o.path == path]) for path in (RECOMMEND, EVENTS)},
        "errors": dict(Counter(f"{o.path} {o.error}" for o in outcomes if o.error is not None)),
        "lists": [
            {"source": source, "rung": rung, "reason": reason or None, "share": round(count / len(lists), 4)}
            | part([o for o in lists if (o.source, o.rung, o.reason or "") == (source, rung, reason)])
            for (source, rung, reason), count in kinds.most_common()
        ],
    }


def is_loopback(host: str) -> bool:
    """Whether every address of a host is this machine's own."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return False
    return bool(found) and all(ipaddress.ip_address(str(address)).is_loopback for address in found)


def read_items(catalogue: Path) -> list[str]:
    """Item ids of a `catalogue.jsonl`, or of the artefact folder that holds one."""
    file = catalogue / "catalogue.jsonl" if catalogue.is_dir() else catalogue
    with file.open("rb") as lines:
        return [orjson.loads(line)["item_id"] for line in lines]


async def _discover(pool: Pool) -> list[str]:
    """Item ids that the service itself recommends to a stranger."""
    answer = await pool.request("POST", RECOMMEND, {"session_id": "load-discovery", "k": 100, "budget_ms": 2000})
    if answer.status != 200:
        raise LoadError(f"/recommend answered {answer.status}")
    return [item["item_id"] for item in answer.body["items"]]


async def _prepare(pool: Pool, rng: np.random.Generator, users: Sequence[str], items: Sequence[str], each: int) -> None:
    """Gives every user a short history, so that lists are more than popularity."""
    start_ms = int(time.time() * 1000) - 86_400_000
    events = [
        {"user_id": user, "item_id": items[int(item)], "type": "click", "timestamp": start_ms + n * 60_000}
        for user in users
        for n, item in enumerate(rng.integers(len(items), size=each))
    ]
    for first in range(0, len(events), BATCH):
        answer = await pool.request("POST", EVENTS, {"events": events[first : first + BATCH]})
        if answer.status != 200:
            raise LoadError(f"/events answered {answer.status} while histories were written")


def _tables(report: dict[str, Any]) -> list[Any]:
    def latencies(part: dict[str, Any]) -> list[Any]:
        return list(part["latency_ms"].values())

    columns = ["p50 ms", "p95 ms", "p99 ms", "max ms"]
    title = (
        f"{report['achieved_rate']} answered a second of {report['asked_rate']} asked, for {report['seconds']:.1f} s"
    )
    routes = [[path, p["requests"], p["errors"], *latencies(p)] for path, p in report["routes"].items()]
    routes.append(["/recommend, inside the service", None, None, *report["service_ms"].values()])
    lists = [
        [row["source"], row["rung"], row["reason"] or "", f"{row['share']:.1%}", *latencies(row)]
        for row in report["lists"]
    ]
    return [
        table(title, ["route", "requests", "errors", *columns], routes),
        table("lists", ["source", "rung", "reason", "share", *columns], lists),
        *([table("errors", ["what", "count"], list(report["errors"].items()))] if report["errors"] else []),
    ]


def main(
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
    rate: Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests a second.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long.")] = 20.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 0,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections.")] = 32,
    events_share: Annotated[float, typer.Option(min=0, max=1, help="Part of the requests that go to /events.")] = 0.3,
    k: Annotated[int, typer.Option(min=1, max=100, help="Items of a list.")] = 10,
    users: Annotated[int, typer.Option(min=1, help="Synthetic users.")] = 500,
    users_file: Annotated[Path | None, typer.Option(help="User ids to take instead, one a line.")] = None,
    history: Annotated[int, typer.Option(min=0, max=1000, help="Events given to each synthetic user first.")] = 20,
    catalogue: Annotated[
        Path | None, typer.Option(help="catalogue.jsonl, or the artefact that holds it; else the service is asked.")
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="LOAD_API_KEY", help="API key, where the service asks for one.")] = "",
    timeout_s: Annotated[float, typer.Option(min=0.1, help="After so long a request has failed.")] = 10.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here; - prints them.")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Also load another machine.")] = False,
) -> None:
    """Open-loop load with Poisson arrivals; latencies count from when a request was due.

    Writes events of synthetic users (`load-<seed>-<n>`) into the service's store. Exits 1 where a list did not come.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise typer.BadParameter("an http:// URL is needed", param_hint="--url")
    if not allow_remote and not is_loopback(parts.hostname):
        raise typer.BadParameter(f"{parts.hostname} is not this machine; give --allow-remote", param_hint="--url")
    if rate * seconds > MAX_ARRIVALS:
        raise typer.BadParameter(f"more than {MAX_ARRIVALS:,} requests", param_hint="--rate")
    headers = {"X-API-Key": api_key} if api_key else {}
    names = users_file.read_text(encoding="utf-8").split("\n") if users_file else []
    names = [name for name in names if name] or [f"load-{seed}-{n}" for n in range(users)]

    async def go() -> dict[str, Any]:
        pool = Pool(parts.hostname or "", parts.port or 80, size=connections, headers=headers, timeout_s=timeout_s)
        rng = np.random.default_rng(seed)
        try:
            items = read_items(catalogue) if catalogue else await _discover(pool)
            if users_file is None and history:
                await _prepare(pool, rng, names, items, history)
            arrivals = schedule(
                rng, rate=rate, seconds=seconds, users=names, items=items, events_share=events_share, k=k,
                now_ms=int(time.time() * 1000),
            )  # fmt: skip
            began = time.perf_counter()
            outcomes = await run(pool, arrivals)
            return summary(outcomes, time.perf_counter() - began, rate)
        finally:
            await pool.close()

    try:
        report = uvloop.run(go())
    except (LoadError, OSError, ValueError, KeyError) as error:
        typer.echo(f"load: no run: {error}", err=True)
        raise typer.Exit(1) from None
    publish(_tables(report), report, json_file)
    if (report["send_lag_ms"]["p99"] or 0.0) > LATE_SEND_MS:
        typer.echo(f"load: 1 % of the requests were sent {report['send_lag_ms']['p99']} ms late or more: the machine "
                   "is short of processors, and part of the latency is the generator's", err=True)  # fmt: skip
    if report["routes"][RECOMMEND]["errors"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
