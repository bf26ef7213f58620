"""The open-loop driver, as a library.

    poisson(rng, rate, seconds) -> float64 [n]                       arrival times, seconds from the start
    Arrival(due_s, path, body, method="POST", label="")              one request; body is encoded JSON
    await drive(url, arrivals, *, connections=32, warmup_s=1.0, timeout_s=10.0, max_in_flight=5000, headers=None,
                allow_remote=False, stamped=False, record=None) -> Report   a Record is filled with every request
    drive_now(url, arrivals, **the same) -> Report                   from synchronous code, on uvloop
    await closed(url, requests, *, concurrency=1, …) -> Report       as fast as answers come, for costs at concurrency 1
    loadtests.load.capacity: capacity(url, make, *, p99_ms=50.0, …)       the highest rate that holds, by bisection

    Report.offered_rate, .answered_rate  requests a second, after the warm-up
    Report.errors                        {"/recommend 503": 2, "/recommend timeout": 1, …}; empty is good
    Report.routes["/recommend"]          Latencies of answered requests (HDR, ms): .at(99), .figures()
    Report.rungs["full"]                 Latencies of the answers that named this rung
    Report.late_share, .cpu_share        requests sent > 5 ms late; processor time of the generator / wall time
    Report.json() -> dict                all of it, histograms encoded

Requests are sent when they are due (Poisson arrivals), whether or not earlier ones were answered, and a latency counts
from the moment a request was due. A closed loop would wait with the service and hide exactly the slow answers
("coordinated omission"). What was due during the warm-up is sent, and counts in no figure but the errors.
The driver runs in the process that calls it, which must not be the one under test.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import uvloop

from loadtests.load.run_figures import LATE_SEND_MS, Report
from loadtests.load.sender import Answer, Arrival, Record, Sender, Target

__all__ = [
    "LATE_SEND_MS",
    "Answer",
    "Arrival",
    "LoadError",
    "Record",
    "Report",
    "closed",
    "closed_now",
    "drive",
    "drive_now",
    "is_loopback",
    "poisson",
    "target",
]

MAX_IN_FLIGHT = 5_000


class LoadError(RuntimeError):
    """There was no run: not loopback, not http, or nobody listens."""


def poisson(rng: np.random.Generator, rate: float, seconds: float) -> npt.NDArray[np.float64]:
    """Arrival times of a Poisson process, ascending, in [0, seconds): about rate × seconds of them."""
    expected = rate * seconds
    dues = np.cumsum(rng.exponential(1.0 / rate, int(expected * 1.2 + 20 * expected**0.5 + 20)))
    return dues[dues < seconds]


def target(url: str, *, allow_remote: bool = False) -> Target:
    """Where an http:// URL points to. Raises LoadError where it is another machine and that was not allowed."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise LoadError(f"{url}: an http:// URL is needed")
    if not allow_remote and not is_loopback(parts.hostname):
        raise LoadError(f"{parts.hostname} is not this machine; give --allow-remote")
    return Target(parts.hostname, parts.port or 80, parts.netloc)


def is_loopback(host: str) -> bool:
    """Whether every address of a host is this machine's own."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return False
    return bool(found) and all(ipaddress.ip_address(str(address)).is_loopback for address in found)


async def drive(
    url: str,
    arrivals: Sequence[Arrival],
    *,
    connections: int = 32,
    warmup_s: float = 1.0,
    timeout_s: float = 10.0,
    max_in_flight: int = MAX_IN_FLIGHT,
    headers: Mapping[str, str] | None = None,
    allow_remote: bool = False,
    stamped: bool = False,
    record: Record | None = None,
) -> Report:
    """Sends every arrival when it is due. Beyond `max_in_flight` open requests one is not sent, and is an error.
    `record` is filled with what became of each request. `stamped` ones carry an X-Request-Start: when they were due.

    Raises LoadError where nobody listens at the URL, or it is not this machine's and `allow_remote` is false.
    """
    sender = Sender(
        target(url, allow_remote=allow_remote),
        arrivals,
        connections=connections,
        timeout_s=timeout_s,
        max_in_flight=max_in_flight,
        headers=headers,
        paced=True,
        stamped=stamped,
    )
    await _sent(sender)
    if record is not None:
        sender.fill(record)
    return sender.report(warmup_s)


async def closed(
    url: str,
    requests: Sequence[Arrival],
    *,
    concurrency: int = 1,
    skip: int = 0,
    within_s: float | None = None,
    keep: Callable[[bytes], None] | None = None,
    timeout_s: float = 10.0,
    headers: Mapping[str, str] | None = None,
    allow_remote: bool = False,
) -> Report:
    """Sends the next request when an answer came, `concurrency` at a time; the first `skip` count in no figure.

    Latencies count from the moment of sending: for what an answer costs, not for how a service bears load. `keep` is
    given the body of every answer, as it comes; after `within_s` no further request is sent.
    """
    sender = Sender(
        target(url, allow_remote=allow_remote),
        requests,
        connections=concurrency,
        timeout_s=timeout_s,
        max_in_flight=concurrency,
        headers=headers,
        paced=False,
        keep=keep,
        within_s=within_s,
    )
    return (await _sent(sender)).report(0.0, skip)


def drive_now(url: str, arrivals: Sequence[Arrival], **options: Any) -> Report:
    """`drive` from synchronous code, on uvloop."""
    return uvloop.run(drive(url, arrivals, **options))


def closed_now(url: str, requests: Sequence[Arrival], **options: Any) -> Report:
    """`closed` from synchronous code, on uvloop."""
    return uvloop.run(closed(url, requests, **options))


async def _sent(run: Sender) -> Sender:
    try:
        await run.go()
    except OSError as error:
        raise LoadError(f"{run.to.named}: {error.strerror or type(error).__name__}") from error
    return run
