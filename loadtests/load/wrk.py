"""A second generator, in C, as a cross-check: `python -m loadtests.load.wrk --url http://127.0.0.1:8000 --data DIR`.

wrk sends the requests of the same replay as a closed loop: each connection sends its next request when an answer has
come. It is compared with our own driver as a closed loop of as many connections, in rounds that alternate. If both
find the same rate and latency, neither measures itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import orjson
import typer

from loadtests.common.hdr import Latencies
from loadtests.common.report import publish, table
from loadtests.load.open_loop_driver import Arrival, LoadError, closed_now, target
from loadtests.load.replay import Replay, read
from service.cli.json_report import AsJson, JsonFile, check_target
from service.cli.outermost import run_command

METHOD = (
    "A closed loop of {connections} connections over the replay, {seconds:g} s, medians of {rounds} rounds that "
    "alternate: wrk and our own driver beside each other."
)
# More than the service answers. At the end of the list wrk starts again; an event sent twice is idempotent.
MOST_RATE = 2_000
_RATE = re.compile(r"Requests/sec:\s*([\d.]+)")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_BAD = re.compile(r"Non-2xx or 3xx responses:\s*\d+|Socket errors:\s*.+")
_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Figures:
    """Requests a second, and latencies in milliseconds over all routes; `bad` lists failures."""

    rate: float
    p50_ms: float
    p99_ms: float
    bad: str | None = None


def available() -> bool:
    """Returns whether wrk is installed."""
    return shutil.which("wrk") is not None


def lua(requests: Sequence[Arrival]) -> str:
    """Returns a script that sends one request after the other, in order, for one thread of wrk.

    wrk asks for one extra request at the beginning, which it does not send: that is the last one.
    """
    rows = "\n".join(f"  {{{_text(r.method)}, {_text(r.path)}, {_text(r.body.decode())}}}," for r in requests)
    return (
        f"local requests, encoded, n = {{\n{rows}\n}}, {{}}, -1\n"
        "function init(args)\n"
        '  local headers = {["Content-Type"] = "application/json"}\n'
        "  for i, r in ipairs(requests) do encoded[i] = wrk.format(r[1], r[2], headers, r[3]) end\n"
        "end\n"
        "function request()\n  n = n % #encoded + 1\n  return encoded[n]\nend\n"
    )


def run(url: str, requests: Sequence[Arrival], *, connections: int, seconds: float) -> Figures:
    """Runs wrk.

    Raises:
        LoadError: If wrk is not installed, fails, or prints something unexpected.
    """
    if not available():
        raise LoadError("wrk is not installed: apt-get install wrk, or see github.com/wg/wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "replay.lua"
        script.write_text(lua(requests), encoding="utf-8")
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            str(script),
        ]
        done = subprocess.run(  # noqa: S603 - no shell
            [*command, url], capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    if done.returncode:
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout)


def parse(text: str) -> Figures:
    """Reads the figures from the output of wrk.

    Raises:
        LoadError: If they are missing.
    """
    rate = _RATE.search(text)
    at = {percent: float(value) * _UNIT_MS[unit] for percent, value, unit in _PERCENTILE.findall(text)}
    if rate is None or not {"50", "99"} <= at.keys():
        raise LoadError(f"unexpected output of wrk: {text[-500:]}")
    bad = _BAD.search(text)
    return Figures(float(rate[1]), at["50"], at["99"], " ".join(bad[0].split()) if bad else None)


def ours(url: str, requests: Sequence[Arrival], *, connections: int, seconds: float) -> Figures:
    """Runs our own driver; requests that wrk would not have reached in the time are left out."""
    report = closed_now(url, requests, concurrency=connections, within_s=seconds)
    every = Latencies()
    for found in report.routes.values():
        every.add(found)
    bad = ", ".join(f"{kind} ×{count}" for kind, count in report.errors.items())
    return Figures(report.answered_rate, every.at(50) or 0.0, every.at(99) or 0.0, bad or None)


def compare(url: str, replay: Replay, *, connections: int = 8, seconds: float = 5.0, rounds: int = 3) -> dict[str, Any]:
    """Runs both generators in rounds; returns the content of `wrk.json`.

    Raises:
        LoadError: If one of them fails.
    """
    found: dict[str, list[Figures]] = {"wrk": [], "loadtests.load.open_loop_driver": []}
    count = int(seconds * MOST_RATE)
    for _ in range(rounds):
        for name, generator in (("wrk", run), ("loadtests.load.open_loop_driver", ours)):
            replay.prepare(url, count)
            found[name].append(generator(url, replay.take(count), connections=connections, seconds=seconds))
    return {
        "method": METHOD.format(connections=connections, seconds=seconds, rounds=rounds),
        "rows": [
            {
                "what": name,
                "rate": round(median(one.rate for one in figures), 1),
                "p50_ms": round(median(one.p50_ms for one in figures), 3),
                "p99_ms": round(median(one.p99_ms for one in figures), 3),
                "bad": sorted({one.bad for one in figures if one.bad}),
            }
            for name, figures in found.items()
        ],
    }


def _text(text: str) -> str:
    """Returns a Lua string literal; it differs from JSON only for control characters, which ids do not have."""
    return orjson.dumps(text).decode()


def main(
    data: Annotated[Path, typer.Option(help="Data set folder whose sessions are replayed.")],
    url: Annotated[str, typer.Option(help="URL of the service.")] = "http://127.0.0.1:8000",
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections.")] = 8,
    seconds: Annotated[float, typer.Option(min=1.0, max=600, help="Time of each run.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Runs of each.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 0,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a URL of another machine.")] = False,
    as_json: AsJson = False,
    json_file: JsonFile = None,
) -> None:
    """Compares wrk with our own driver on a running service."""
    check_target(as_json, json_file)
    try:
        target(url, allow_remote=allow_remote)
        if not available():
            raise LoadError("wrk is not installed: apt-get install wrk, or see github.com/wg/wrk")
        replay = Replay(read(data), seed=seed, prefix=f"wrk-{seed}-")
        found = compare(url, replay, connections=connections, seconds=seconds, rounds=rounds)
    except LoadError as error:
        typer.echo(f"wrk: no run: {error}", err=True)
        raise typer.Exit(1) from None
    rows = [[one["what"], one["rate"], one["p50_ms"], one["p99_ms"], ", ".join(one["bad"])] for one in found["rows"]]
    publish([table(found["method"], ["", "requests/s", "p50 ms", "p99 ms", "wrong"], rows)], found, as_json, json_file)


if __name__ == "__main__":
    run_command(main)
