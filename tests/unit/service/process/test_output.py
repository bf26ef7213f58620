"""Lines behind a bounded queue: readers that stall or are gone, and full disks, hold nobody up."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.common import logs
from service.process.output import LineStream, LineWriter

WAIT_S = 20.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with contextlib.suppress(OSError):
            os.close(end)


def eventually_dropped(writer: LineWriter, lines: int) -> None:
    until = time.monotonic() + WAIT_S
    while writer.dropped < lines:
        assert time.monotonic() < until, writer.dropped
        time.sleep(0.005)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_stalls_holds_nobody_up_and_learns_what_it_missed(pipe: tuple[int, int], blocking: bool) -> None:
    read, write = pipe
    os.set_blocking(write, blocking)
    writer = LineWriter(write, logs.dropped_notice, most_bytes=100_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):  # the pipe takes 64 of them, the queue about 100
        writer.put(line)
    assert writer.dropped > 700
    assert not writer.flush(0.05)
    kept = 1000 - writer.dropped
    seen, sent, until = b"", False, time.monotonic() + WAIT_S
    while not seen.endswith(b"end\n"):
        assert time.monotonic() < until
        if select.select((read,), (), (), 0.01)[0]:
            seen += os.read(read, 1 << 16)
        if not sent and writer.flush(0.0):
            writer.put(b"end\n")
            sent = True
    *lines, _ = seen.splitlines()
    told = [json.loads(one) for one in lines if not one.startswith(b"x")]
    assert [(one["event"], one["lines"]) for one in told] == [("log_lines_dropped", 1000 - kept)]
    assert lines.count(line.strip()) == kept


def test_a_reader_that_is_gone_costs_the_lines_alone(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = LineWriter(write, logs.dropped_notice)
    os.close(read)
    for n in range(1, 4):
        writer.put(b"one\ntwo\n")
        eventually_dropped(writer, 2 * n)
    assert writer.flush(WAIT_S)


def test_a_full_disk_costs_the_lines_alone() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        writer = LineWriter(full, logs.dropped_notice)
        stream = LineStream(writer, full)
        for _ in range(3):
            print("a line", file=stream, flush=True)
        eventually_dropped(writer, 3)
        assert writer.flush(WAIT_S)
    finally:
        os.close(full)


SCRIPT = """
import resource, sys, time
from service.common import logs
from service.process import output
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, most))  # as a disk with room for two lines and a half
output.take_over(logs.dropped_notice)
sys.stderr.write(f"{'x' * 19}\\n" * 5)
while output.dropped() < 3:
    time.sleep(0.005)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
raise RuntimeError("at the end")
"""


def test_a_disk_that_is_full_for_a_while_costs_the_lines_meanwhile(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=log, stderr=log, check=False, timeout=60)
    whole, again, torn, told, *traceback = (tmp_path / "log").read_text().splitlines()
    assert (whole, again, torn) == ("x" * 19, "x" * 19, "x" * 10)
    assert json.loads(told)["lines"] == 3
    assert (done.returncode, traceback[-1]) == (1, "RuntimeError: at the end")


def test_a_line_arrives_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        writer = LineWriter(fd, logs.dropped_notice)
        stream = LineStream(writer, fd)
        stream.write("in ")
        stream.write("pieces\nnext\nlone \udcff")
        stream.flush()
        assert writer.flush(WAIT_S)
    finally:
        os.close(fd)
    assert path.read_bytes() == b"in pieces\nnext\nlone \\udcff"


@pytest.mark.parametrize("value", ["\udcff", 1 << 70, {1: object()}, b"\xff"])
def test_no_value_of_a_field_breaks_a_log_line(value: object) -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    logs.get("test").info("hello", value=value)
    assert "hello" in [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
