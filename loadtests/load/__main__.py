"""Open-loop load on a running service: `python -m loadtests.load --url http://127.0.0.1:8000 [--data DIR]`.

With a data set it replays real sessions (`loadtests.load.replay`); without one it invents users. How requests are sent,
and from when latency counts: `loadtests.load.open_loop_driver`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from loadtests.common.hdr import PERCENTILES
from loadtests.common.report import publish, table
from loadtests.load.items import read_items
from loadtests.load.open_loop_driver import LATE_SEND_MS, Arrival, LoadError, Report, drive_now, poisson, target
from loadtests.load.replay import BEAM, EVENTS, RECOMMEND, Replay, read, send_beforehand
from service.cli.json_report import AsJson, JsonFile, check_target
from service.cli.outermost import run_command

MAX_ARRIVALS = 2_000_000
BATCH = 500


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
    """Returns Poisson arrivals of invented users at random items; the same generator gives the same requests.

    Args:
        rng: Source of all random choices.
        rate: Requests a second.
        seconds: Length of the schedule.
        users: Names of the users.
        items: Item ids of the events.
        events_share: Share of the requests that are /events; the others are /recommend.
        k: Items of a list.
        now_ms: Time of the first event, epoch milliseconds.
    """
    arrivals = []
    for number, due in enumerate(poisson(rng, rate, seconds).tolist()):
        user = users[int(rng.integers(len(users)))]
        if rng.random() < events_share:
            item = items[int(rng.integers(len(items)))]
            event = {"user_id": user, "item_id": item, "type": "click", "timestamp": now_ms + number}
            arrivals.append(Arrival(due, EVENTS, orjson.dumps({"events": [event]})))
        else:
            arrivals.append(Arrival(due, RECOMMEND, orjson.dumps({"user_id": user, "k": k})))
    return arrivals


def histories(rng: np.random.Generator, users: Sequence[str], items: Sequence[str], each: int) -> list[Arrival]:
    """Returns bodies of /events that give every invented user a history, so that lists are more than popularity."""
    start_ms = int(time.time() * 1000) - 86_400_000
    events = [
        {"user_id": user, "item_id": items[int(item)], "type": "click", "timestamp": start_ms + n * 60_000}
        for user in users
        for n, item in enumerate(rng.integers(len(items), size=each))
    ]
    parts = [events[first : first + BATCH] for first in range(0, len(events), BATCH)]
    return [Arrival(0.0, EVENTS, orjson.dumps({"events": part})) for part in parts]


def discover(url: str, **options: Any) -> list[str]:
    """Returns item ids that the service itself recommends to an unknown session."""
    body = {"session_id": "load-discovery", "k": 100, "budget_ms": 2000}
    bodies = send_beforehand(url, [Arrival(0.0, RECOMMEND, orjson.dumps(body))], **options)
    return [item["item_id"] for item in orjson.loads(bodies[0])["items"]]


def tables(report: Report) -> list[Any]:
    """Returns the tables of a report for the terminal."""
    columns = [f"{name} ms" for name, _ in PERCENTILES]
    title = (
        f"{report.answered_rate:.1f} answered a second of {report.offered_rate:.1f} offered, "
        f"for {report.seconds:.1f} s after {report.warmup_s:g} s of warm-up"
    )
    rows = [[route, len(found), *found.figures().values()] for route, found in report.routes.items()]
    lists = [[rung, f"{report.share(rung):.2%}", *found.figures().values()] for rung, found in report.rungs.items()]
    generator = [
        ["processor time, share of one core", f"{report.cpu_share:.1%}"],
        ["processor time a request", f"{report.cpu_us:.0f} µs"],
        [f"sent more than {LATE_SEND_MS:g} ms late", f"{report.late_share:.2%}"],
        ["waited for a free connection", f"{report.waited_share:.2%}"],
    ]
    return [
        table(title, ["route", "answered", *columns], rows),
        table("rungs", ["rung", "share", *columns], lists),
        *([table("reasons", ["reason", "count"], list(report.reasons.items()))] if report.reasons else []),
        table("the generator itself", ["what", "figure"], generator),
        *([table("errors", ["what", "count"], list(report.errors.items()))] if report.errors else []),
    ]


def main(
    url: Annotated[str, typer.Option(help="URL of the service.")] = "http://127.0.0.1:8000",
    data: Annotated[
        Path | None, typer.Option(help="Data set folder: replay its sessions instead of inventing users.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests a second.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of the run after the warm-up.")] = 20.0,
    warmup_s: Annotated[float, typer.Option(min=0.0, max=600, help="Seconds of load before the figures begin.")] = 2.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 0,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections.")] = 32,
    k: Annotated[int, typer.Option(min=1, max=100, help="Items of a list.")] = 10,
    recommends: Annotated[
        float, typer.Option(min=0, max=100, help="Replay: /recommend requests after each event, on average.")
    ] = 1.0,
    active: Annotated[int, typer.Option(min=1, help="Replay: concurrent sessions.")] = 200,
    beam: Annotated[int, typer.Option(min=0, max=128, help="Replay: beam width; 0 leaves it to the policies.")] = 5,
    events_share: Annotated[float, typer.Option(min=0, max=1, help="Invented users: share of /events.")] = 0.3,
    users: Annotated[int, typer.Option(min=1, help="Invented users: their number.")] = 500,
    history: Annotated[
        int, typer.Option(min=0, max=1000, help="Invented users: events loaded for each beforehand.")
    ] = 20,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="Invented users: artefact, or file of item ids; by default the service is asked."),
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="LOAD_API_KEY", help="API key, if the service requires one.")] = "",
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Time-out of a request.")] = 10.0,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a URL of another machine.")] = False,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Sends open-loop load with Poisson arrivals; latency counts from when a request was due.

    Writes events of users named `load-<seed>-…` into the service's store. Exits with 1 if a request failed.
    """
    check_target(as_json, json_file)
    if rate * (seconds + warmup_s) > MAX_ARRIVALS:
        raise typer.BadParameter(f"more than {MAX_ARRIVALS:,} requests", param_hint="--rate")
    try:
        target(url, allow_remote=allow_remote)
    except LoadError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None
    options: dict[str, Any] = {"headers": {"X-API-Key": api_key} if api_key else {}, "allow_remote": allow_remote}
    took = warmup_s + seconds
    try:
        if data is not None:
            decoding = {**BEAM, "beam_width": beam} if beam else None
            replay = Replay(
                read(data), seed=seed, recommends=recommends, active=active, k=k, decoding=decoding,
                prefix=f"load-{seed}-",
            )  # fmt: skip
            replay.prepare(url, int(rate * took * 1.2 + 100), **options)
            arrivals = replay.arrivals(rate, took, seed)
        else:
            rng = np.random.default_rng(seed)
            names = [f"load-{seed}-{n}" for n in range(users)]
            items = read_items(catalogue) if catalogue else discover(url, **options)
            send_beforehand(url, histories(rng, names, items, history), **options)
            arrivals = schedule(
                rng, rate=rate, seconds=took, users=names, items=items, events_share=events_share, k=k,
                now_ms=int(time.time() * 1000),
            )  # fmt: skip
        report = drive_now(
            url, arrivals, connections=connections, warmup_s=warmup_s, timeout_s=timeout_s, **options
        )  # fmt: skip
    except (LoadError, OSError, ValueError, KeyError) as error:
        typer.echo(f"load: no run: {error}", err=True)
        raise typer.Exit(1) from None
    publish(tables(report), report.json(), as_json, json_file)
    if report.late_share > 0.01:
        typer.echo(f"load: {report.late_share:.1%} of the requests were sent more than {LATE_SEND_MS:g} ms late: the "
                   "generator lacks processor time, and part of the latency is its own", err=True)  # fmt: skip
    if report.errors:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
