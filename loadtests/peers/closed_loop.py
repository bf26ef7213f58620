"""wrk, the simple driver: a closed loop over prepared bodies, as a cross-check and for choosing settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_RATE = re.compile(r"Requests/sec:\s*([\d.]+)")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_BAD = re.compile(r"Non-2xx or 3xx responses:\s*(\d+)|Socket errors:\s*(.+)")
_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Requests a second with `concurrency` connections, and its latencies in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    concurrency: int
    bad: str | None


def available() -> bool:
    return shutil.which("wrk") is not None


def wrk(url: str, path: str, bodies: Sequence[bytes], concurrency: int, seconds: float, scratch: Path) -> ClosedLoop:
    """Raises RuntimeError where wrk fails, or what it prints is not understood."""
    script = scratch / "bodies.lua"
    script.write_text(lua(path, bodies), "utf-8")
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60.0, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return read(done.stdout, concurrency)


def lua(path: str, bodies: Sequence[bytes]) -> str:
    """A script that sends one body after the other. A JSON string is a Lua string, as long as it is ASCII."""
    texts = ",\n".join(json.dumps(body.decode()) for body in bodies)
    return (
        f"local bodies = {{\n{texts}\n}}\n"
        "local n, requests = 0, {}\n"
        "function init(args)\n"
        '  local headers = {["Content-Type"] = "application/json"}\n'
        f"  for i, body in ipairs(bodies) do requests[i] = wrk.format('POST', {json.dumps(path)}, headers, body) end\n"
        "end\n"
        "function request()\n  n = n % #requests + 1\n  return requests[n]\nend\n"
    )


def read(text: str, concurrency: int) -> ClosedLoop:
    """The figures in wrk's output. Raises RuntimeError where they are not there."""
    rate = _RATE.search(text)
    at = {percent: float(value) * _UNIT_MS[unit] for percent, value, unit in _PERCENTILE.findall(text)}
    if rate is None or not {"50", "99"} <= at.keys():
        raise RuntimeError(f"wrk said something else: {text[-500:]}")
    bad = _BAD.search(text)
    return ClosedLoop(float(rate[1]), at["50"], at["99"], concurrency, " ".join(bad[0].split()) if bad else None)
