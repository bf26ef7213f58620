"""The cross-check by wrk: what it is told to send, and what is read of what it says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.load import wrk
from loadtests.load.open_loop_driver import Arrival, LoadError

SAID = """Running 2s test @ http://127.0.0.1:1
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    20.11ms   10.02ms  90.00ms   70.00%
    Req/Sec   349.00     20.00   400.00     70.00%
  Latency Distribution
     50%  812.00us
     75%   24.00ms
     90%   30.00ms
     99%    1.25s
  700 requests in 2.00s, 1.00MB read
{bad}Requests/sec:    349.61
Transfer/sec:      0.50MB
"""


@pytest.mark.parametrize(
    ("bad", "expected"),
    [("", None), ("  Non-2xx or 3xx responses: 7\n", "Non-2xx or 3xx responses: 7"),
     ("  Socket errors: connect 0, read 1\n", "Socket errors: connect 0, read 1")],
    ids=["clean", "status", "socket"],
)  # fmt: skip
def test_figures_are_read_in_milliseconds(bad: str, expected: str | None) -> None:
    assert wrk.parse(SAID.format(bad=bad)) == wrk.Figures(349.61, 0.812, 1250.0, expected)


def test_output_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(LoadError, match="unexpected output"):
        wrk.parse("wrk: usage")


async def _answered(requests: list[Arrival]) -> list[tuple[str, bytes]]:
    """What a server gets from wrk that was told to send these, over one connection."""
    got: list[tuple[str, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                got.append((head.split(b" ", 2)[1].decode(), await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    found = await asyncio.to_thread(wrk.run, url, requests, connections=1, seconds=1.0)
    server.close()
    assert found.rate > 0
    assert found.bad is None
    return got


@pytest.mark.skipif(not wrk.available(), reason="wrk is not installed")
def test_wrk_sends_every_request_in_order_to_the_byte() -> None:
    bodies = [b'{"user_id":"a\\"b\\\\c"}', '{"user_id":"Grüße ✓"}'.encode(), b"{}"]
    requests = [Arrival(0.0, path, body) for path in ("/events", "/recommend") for body in bodies]
    got = asyncio.run(_answered(requests))
    expected = [(one.path, one.body) for one in requests]
    # At the end of the list it starts again.
    assert got[:12] == [*expected, *expected]


def test_without_wrk_its_absence_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.load.wrk", "--data", str(tmp_path)]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "wrk is not installed" in done.stderr
