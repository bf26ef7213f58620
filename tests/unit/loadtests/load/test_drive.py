"""The open-loop driver, against a server in another process that does as it is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from loadtests.common.hdr import Latencies
from loadtests.load.capacity import Step, capacity, fault
from loadtests.load.open_loop_driver import Answer, Arrival, LoadError, Record, Report, closed_now, drive_now, poisson

# Answers after the milliseconds the path names: /wait/20. /status/503, /cut and /never do what they say.
SERVER = r"""
import asyncio, sys

async def serve(reader, writer):
    served = 0
    while head := await reader.readuntil(b"\r\n\r\n"):
        path = head.split(b" ", 2)[1].decode()
        length = int(next(l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length"))[15:])
        await reader.readexactly(length)
        served += 1
        status, body, more = 200, b'{"rung":"full","reason":null}', b""
        if path.startswith("/wait/"):
            await asyncio.sleep(int(path[6:]) / 1000)
        if path.startswith("/block/"):
            import time; time.sleep(int(path[7:]) / 1000)
        if path.startswith("/status/"):
            status = int(path[8:])
        if path == "/overload":
            body = b'{"rung": "item_cf", "reason": "overload", "latency_ms": 1.5}'
        if path == "/cut":
            writer.close(); return
        if path == "/never":
            await asyncio.sleep(3600)
        if path == "/close":
            more = b"Connection: close\r\n"
        if path == "/chunked":
            pieces = b"5\r\n{\"run\r\n6\r\ng\":\"f\"\r\n1\r\n}\r\n0\r\n\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces)
            continue
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, body))
        if more:
            writer.close(); return

async def quiet(reader, writer):
    try:
        await serve(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(quiet, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stdout.close()


def at(path: str, *dues: float) -> list[Arrival]:
    return [Arrival(due, path, b"{}") for due in dues]


def test_gaps_of_poisson_arrivals_are_exponential() -> None:
    dues = poisson(np.random.default_rng(0), 200.0, 50.0)
    gaps = np.diff(dues, prepend=0.0)
    assert len(dues) == pytest.approx(10_000, rel=0.05)
    assert gaps.min() >= 0.0
    assert dues[-1] < 50.0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_a_latency_counts_from_when_the_request_was_due_not_from_when_it_could_be_sent(url: str) -> None:
    # One connection: the second request can be sent only after the first was answered, 300 ms later.
    report = drive_now(url, at("/wait/300", 0.0, 0.0, 0.0), connections=1, warmup_s=0.0)
    latencies = report.routes["/wait/300"]
    assert (latencies.at(100) or 0.0) >= 890.0
    assert (latencies.at(1) or 0.0) >= 290.0
    assert report.waited_share == pytest.approx(2 / 3)


def test_requests_are_sent_when_due_whether_or_not_others_were_answered(url: str) -> None:
    report = drive_now(url, at("/wait/400", *(n / 100 for n in range(20))), connections=20, warmup_s=0.0)
    assert report.most_open == 20
    assert report.seconds < 20 * 0.4


def test_what_is_due_in_the_warm_up_counts_in_no_figure_but_the_errors(url: str) -> None:
    report = drive_now(url, [*at("/status/503", 0.0), *at("/wait/0", 0.05, 0.3, 0.4)], warmup_s=0.2)
    assert report.requests == 2
    assert len(report.routes["/wait/0"]) == 2
    assert report.errors == {"/status/503 503": 1}
    assert report.offered_rate == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("path", "error"),
    [("/status/503", "503"), ("/cut", "cut off"), ("/never", "timeout"), ("/status/200", None), ("/chunked", None)],
)
def test_an_error_is_counted_by_its_kind_and_the_next_request_is_served(url: str, path: str, error: str | None) -> None:
    arrivals = [*at(path, 0.0), *at("/wait/0", 0.05)]
    report = drive_now(url, arrivals, connections=1, warmup_s=0.0, timeout_s=0.4)
    expected = {} if error is None else {f"{path} {error}": 1}
    # With one connection the request behind one that never comes is late too, and no later than the time-out.
    report.errors.pop("/wait/0 timeout", None)
    assert report.errors == expected
    assert report.clean is (error is None)
    again = drive_now(url, [*at(path, 0.0), *at("/wait/0", 0.05)], connections=2, warmup_s=0.0, timeout_s=0.4)
    assert len(again.routes["/wait/0"]) == 1


def test_a_server_that_closes_every_connection_is_dialled_again(url: str) -> None:
    report = drive_now(url, at("/close", *(n / 100 for n in range(30))), connections=3, warmup_s=0.0)
    assert report.clean
    assert len(report.routes["/close"]) == 30


def test_open_requests_are_bounded_and_what_was_not_sent_is_an_error(url: str) -> None:
    report = drive_now(url, at("/wait/200", *([0.0] * 10)), connections=4, max_in_flight=6, warmup_s=0.0)
    assert report.errors == {"/wait/200 not sent: too many are open": 4}
    assert report.most_open == 6


def test_a_record_tells_every_request_in_order_of_due_and_what_its_answer_said(url: str) -> None:
    record = Record()
    arrivals = [*at("/wait/100", 0.0), *at("/overload", 0.05), *at("/never", 0.1), *at("/status/503", 0.15)]
    drive_now(url, arrivals, connections=4, warmup_s=0.12, timeout_s=0.4, record=record)
    slow, list_, never, refused = record.answers
    assert [answer.due_s for answer in record.answers] == [0.0, 0.05, 0.1, 0.15]
    assert (slow.took_s or 0.0) >= 0.1
    assert list_ == Answer("/overload", 0.05, list_.took_s, 200, "item_cf", "overload", 1.5)
    assert (never.status, never.took_s) == ("timeout", None)
    assert (refused.status, refused.took_s is None) == (503, False)
    assert record.began > 0.0


def test_rungs_and_reasons_are_told_apart(url: str) -> None:
    report = drive_now(url, [*at("/wait/0", 0.0, 0.0, 0.0), *at("/overload", 0.0)], warmup_s=0.0)
    assert {rung: len(found) for rung, found in report.rungs.items()} == {"full": 3, "item_cf": 1}
    assert report.share("full") == 0.75
    assert report.reasons == {"overload": 1}
    told = report.json()
    assert told["rungs"]["item_cf"]["share"] == 0.25
    assert told["generator"]["cpu_us_a_request"] > 0


def test_a_closed_loop_keeps_to_its_concurrency_and_answers_in_turn(url: str) -> None:
    bodies: list[bytes] = []
    report = closed_now(url, at("/wait/20", *([0.0] * 10)), concurrency=2, skip=2, keep=bodies.append)
    assert (len(bodies), report.requests) == (10, 8)
    assert report.seconds >= 4 * 0.02
    assert (report.routes["/wait/20"].at(1) or 0.0) >= 19.0


def test_nobody_listening_is_said() -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:1"):
        drive_now("http://127.0.0.1:1", at("/", 0.0))


@pytest.mark.parametrize("url", ["http://192.0.2.1", "https://127.0.0.1", "nonsense"])
def test_another_machine_or_scheme_is_refused(url: str) -> None:
    with pytest.raises(LoadError):
        drive_now(url, at("/", 0.0))


def test_an_empty_run_reports_nothing(url: str) -> None:
    report = drive_now(url, [])
    assert (report.requests, report.errors, report.routes) == (0, {}, {})


def test_latencies_keep_three_digits_and_can_be_merged() -> None:
    latencies = Latencies(float(ms) for ms in range(1, 1001))
    assert latencies.at(50) == pytest.approx(500.0, rel=1e-3)
    assert latencies.at(99) == pytest.approx(990.0, rel=1e-3)
    more = Latencies([5000.0])
    more.add(latencies)
    assert len(more) == 1001
    assert more.at(100) == pytest.approx(5000.0, rel=1e-3)
    assert Latencies().figures() == {"p50": None, "p95": None, "p99": None, "p99.9": None, "max": None}
    assert latencies.report()["hdr"].startswith("HIST")


def ran(ms: float = 1.0, rungs: dict[str, int] | None = None, errors: dict[str, int] | None = None) -> Report:
    lists = {rung: Latencies([ms] * count) for rung, count in (rungs or {"full": 100}).items()}
    return Report(
        100.0, 100.0, 1.0, 100, errors or {}, {"/recommend": Latencies([ms] * 100)}, lists, {}, Latencies(), 0.0, 0.0,
        1, 0.1, 50.0, 8, 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (ran(), None),
        (ran(ms=51.0), "/recommend: p99 51.0 ms"),
        (ran(errors={"/recommend 503": 2}), "errors: /recommend 503 ×2"),
        (ran(rungs={"full": 90, "item_cf": 10}), "90.0% full lists"),
    ],
    ids=["holds", "late", "errors", "degraded"],
)
def test_a_rate_holds_only_in_time_without_errors_and_with_full_lists(report: Report, why: str | None) -> None:
    assert fault(report, p99_ms=50.0, route=None, full_share=0.99) == why


def test_capacity_is_found_where_the_server_begins_to_queue(url: str) -> None:
    steps: list[Step] = []

    def make(rate: float, seconds: float, seed: int) -> list[Arrival]:
        return [
            Arrival(due, "/block/10", b"{}") for due in poisson(np.random.default_rng(seed), rate, seconds).tolist()
        ]

    found = capacity(
        url, make, p99_ms=100.0, low=40.0, seconds=0.5, warmup_s=0.1, confirm_s=0.5, precision=0.5, settle_s=0.0,
        on_step=steps.append,
    )  # fmt: skip
    # One request at a time, 10 ms each: beyond 100 a second its queue grows without bound.
    assert 0.0 < found.rate < 130.0
    assert found.report is not None
    assert found.report.clean
    assert found.steps == steps
    assert steps[-1].fault is None
