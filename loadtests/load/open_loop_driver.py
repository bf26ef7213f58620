"""The open-loop driver, as a library.

    poisson(rng, rate, seconds) -> float64 [n]                       arrival times, seconds from the start
    Arrival(due_s, path, body, method="POST", label="")              one request; body is encoded JSON
    await drive(url, arrivals, …) -> Report                          sends each arrival when it is due
    drive_now(url, arrivals, **the same) -> Report                   from synchronous code, on uvloop
    await closed(url, requests, *, concurrency=1, …) -> Report       closed loop, for costs at a given concurrency
    loadtests.load.capacity: capacity(url, make, *, p99_ms=50.0, …)  the highest rate that holds, by bisection

    Report.offered_rate, .answered_rate  requests a second, after the warm-up
    Report.errors                        {"/recommend 503": 2, "/recommend timeout": 1, …}; empty is good
    Report.routes["/recommend"]          Latencies of answered requests (HDR, ms): .at(99), .figures()
    Report.rungs["full"]                 Latencies of the answers that named this rung
    Report.late_share, .cpu_share        requests sent > 5 ms late; processor time of the generator / wall time
    Report.json() -> dict                all of it, histograms encoded

Requests are sent when they are due (Poisson arrivals), whether or not earlier ones were answered, and latency counts
from the moment a request was due. A closed loop would wait with the service and hide exactly the slow answers
("coordinated omission"). Requests of the warm-up are sent, but count only if they fail.
The driver runs in the process that calls it, which must not be the process under test.
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

from loadtests.load.arrivals import Answer, Arrival, Record, Target
from loadtests.load.run_figures import LATE_SEND_MS, Report
from loadtests.load.sender import Sender

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
    """Raised if there was no run: not loopback, not http, or no service listens."""


def poisson(rng: np.random.Generator, rate: float, seconds: float) -> npt.NDArray[np.float64]:
    """Returns arrival times of a Poisson process, ascending, in [0, seconds): about rate × seconds of them."""
    expected = rate * seconds
    dues = np.cumsum(rng.exponential(1.0 / rate, int(expected * 1.2 + 20 * expected**0.5 + 20)))
    return dues[dues < seconds]


def target(url: str, *, allow_remote: bool = False) -> Target:
    """Resolves an http:// URL.

    Raises:
        LoadError: If it names another machine and `allow_remote` is false.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise LoadError(f"{url}: not an http:// URL")
    if not allow_remote and not is_loopback(parts.hostname):
        raise LoadError(f"{parts.hostname} is not this machine; to load it, give --allow-remote")
    return Target(parts.hostname, parts.port or 80, parts.netloc)


def is_loopback(host: str) -> bool:
    """Returns whether every address of a host belongs to this machine."""
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
    """Sends every arrival when it is due.

    Args:
        url: URL of the service.
        arrivals: Requests, ascending by `due_s`.
        connections: Connections, opened at the start.
        warmup_s: Requests due before this count only if they fail.
        timeout_s: Time after which a request has failed.
        max_in_flight: With more open requests, further ones are not sent and count as errors.
        headers: Further headers of each request.
        allow_remote: Allow a URL of another machine.
        stamped: Send X-Request-Start with the moment at which the request was due.
        record: Filled with the outcome of each request.

    Raises:
        LoadError: If no service listens at the URL, or it is another machine's and `allow_remote` is false.
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
        sender.outcomes.fill(record)
    return sender.outcomes.report(warmup_s)


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
    """Sends the next request when an answer has come, `concurrency` at a time.

    Latency counts from the moment of sending: for the cost of an answer, not for how a service sustains load.

    Args:
        url: URL of the service.
        requests: Requests, in order.
        concurrency: Requests at once.
        skip: So many first requests count in no figure.
        within_s: No further request is sent after so many seconds.
        keep: Called with the body of every answer.
        timeout_s: Time after which a request has failed.
        headers: Further headers of each request.
        allow_remote: Allow a URL of another machine.

    Raises:
        LoadError: If no service listens at the URL, or it is another machine's and `allow_remote` is false.
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
    return (await _sent(sender)).outcomes.report(0.0, skip)


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
