"""HTTP servers around the service: the same application and the same load, in alternating rounds.

    python -m loadtests.engine.asgi_servers --artifact ARTIFACT --data DATA

Another server than uvicorn would become the default if it was kept well, drained gracefully, framed strictly and served
at least 1.15 times as many lists here: `BETTER`, the median over the rounds of the ratio to uvicorn in the same round.
Each server is a service process of its own on an embedded store. A round sends a closed loop with 32 requests in flight
to one after the other, each time for the same number of seconds, and begins with another server than the one before.

Also says how each one treats bytes that another server could read as another request (`STRICT`): 400 and the end of the
connection, or no answer at all.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.harness.bench import (
    PATIENT,
    Bench,
    batches,
    history,
    load,
    median,
    real_histories,
    recommend_request,
    warm,
)
from loadtests.harness.served_process import Served, serve
from loadtests.load.open_loop_driver import Arrival, closed_now
from loadtests.load.replay import RECOMMEND, read
from service.cli.outermost import run_command
from service.settings.service_settings import Settings

BETTER = 1.15
SERVERS: tuple[str, ...] = get_args(Settings.model_fields["http_server"].annotation)
IN_FLIGHT, USERS = 32, 200
_ROUNDS, _SECONDS = 9, 3.0
_ANSWER_S = 2.0
_HEAD = b"POST /recommend HTTP/1.1\r\nhost: a\r\n"
_SMUGGLED = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
# Bytes that servers in a chain could read as different requests (RFC 9112, 6.3 and 11.2).
STRICT: Mapping[str, bytes] = {
    "a length and a transfer coding": _HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + _SMUGGLED,
    "two lengths": _HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "an unknown transfer coding": _HEAD + b"transfer-encoding: xchunked\r\n\r\n" + _SMUGGLED,
    "two hosts": _HEAD + b"host: b\r\ncontent-length: 2\r\n\r\n{}",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a chunked body of HTTP/1.0": _HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n" + _SMUGGLED,
    "a space before a colon": _HEAD + b"content-length : 2\r\n\r\n{}",
}


@dataclass(frozen=True, slots=True)
class Round:
    """What a server did in one round.

    Attributes:
        lists_s: Lists in a second.
        cpu_us: Processor time of its process for each list, microseconds.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
    """

    lists_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def measured(served: Served, bodies: Sequence[Arrival], seconds: float) -> Round:
    """Loads a server for some seconds."""
    lists = 0

    def keep(_: bytes) -> None:
        nonlocal lists
        lists += 1

    before = served.cpu_s()
    report = closed_now(served.url, bodies, concurrency=IN_FLIGHT, within_s=seconds, keep=keep)
    if report.errors:
        raise RuntimeError(f"requests failed: {report.errors}")
    took = report.routes[RECOMMEND]
    return Round(lists / seconds, 1e6 * (served.cpu_s() - before) / lists, took.at(50) or 0.0, took.at(99) or 0.0)


def refuses(url: str, raw: bytes) -> bool:
    """Returns whether a server answers nothing but one refusal to these bytes, and ends the connection."""
    at = urlsplit(url)
    said = b""
    with socket.create_connection((at.hostname or "", at.port or 80), timeout=_ANSWER_S) as connection:
        connection.sendall(raw)
        try:
            while part := connection.recv(65_536):
                said += part
        except TimeoutError:
            return False  # it waits for more of what should have ended
        except ConnectionError:
            pass
    statuses = [line.split()[1] for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return statuses in ([], [b"400"], [b"501"])


def compare(bench: Bench) -> dict[str, Any]:
    """Returns what each server did in each round, and which bytes it refuses."""
    if bench.data is None:
        raise ValueError("needs --data")
    histories = real_histories(read(bench.data), USERS, least=50, longest=100)
    names = list(histories)
    earlier = [one for name, items in histories.items() for one in history(name, items)]
    asked = [recommend_request(names[n % len(names)]) for n in range(bench.some(20_000, 2_000))]
    rounds, seconds = bench.some(_ROUNDS, 1), bench.some(int(_SECONDS), 1)
    found: dict[str, list[Round]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(serve(bench.artifact, **PATIENT, GPT4REC_HTTP_SERVER=name)) for name in SERVERS
        }
        for served in running.values():
            load(bench, served.url, "histories", list(batches(earlier)))
            warm(bench, served.url, names)
        with bench.progress("rounds", rounds + 1) as advance:
            for number in range(rounds + 1):  # the first one warms up
                for place in range(len(SERVERS)):
                    name = SERVERS[(number + place) % len(SERVERS)]
                    one = measured(running[name], asked, seconds)
                    if number:
                        found[name].append(one)
                advance()
        strict = {name: {kind: refuses(s.url, raw) for kind, raw in STRICT.items()} for name, s in running.items()}
    return {name: _figures(found[name], found["uvicorn"], strict[name]) for name in SERVERS}


def _figures(rounds: Sequence[Round], uvicorn: Sequence[Round], strict: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "lists_s": round(median(one.lists_s for one in rounds), 1),
        "times_uvicorn": round(median(a.lists_s / b.lists_s for a, b in zip(rounds, uvicorn, strict=True)), 3),
        "cpu_us": round(median(one.cpu_us for one in rounds), 1),
        "p50_ms": round(median(one.p50_ms for one in rounds), 2),
        "p99_ms": round(median(one.p99_ms for one in rounds), 2),
        "refuses": dict(strict),
        "rounds": [asdict(one) for one in rounds],
    }


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="Data set folder with the histories.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Little work, to try the command; records no figures.")] = False,
) -> None:
    """Compares the servers, and writes `asgi_servers.json`."""
    if quick and out == results.RESULTS:  # a quick run must not overwrite recorded figures
        raise typer.BadParameter("a quick run needs a folder of its own", param_hint="--out")
    command = "python -m loadtests.engine.asgi_servers --artifact ARTIFACT --data DATA"
    bench = Bench(artifact, data, command, Console(), out, quick)
    found = compare(bench)
    for name, one in found.items():
        lenient = [kind for kind, refused in one["refuses"].items() if not refused]
        bench.console.print(
            f"  {name}: {one['lists_s']:g} lists/s ({one['times_uvicorn']:g} × uvicorn), {one['cpu_us']:g} µs each, "
            f"p99 {one['p99_ms']:g} ms; does not refuse: {', '.join(lenient) or 'nothing'}",
            highlight=False,
        )
    bench.save("asgi_servers", {"in_flight": IN_FLIGHT, "better": BETTER, "servers": found})


if __name__ == "__main__":
    run_command(main)
