"""Heads that are too large, and bytes that are no HTTP: refused clearly, and nobody else notices."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import orjson
import pytest

from loadtests.load.arrivals import Target
from loadtests.reliability.hostile_requests import KINDS, Kind, send_all
from tests.support.processes import PATIENT, Serve, recommend, serve
from tests.support.valkey import Valkey

ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
WAIT_S = 20.0
MIB = 2**20
RECEIVING_MIB = 16
AT_REST = 1_000  # bytes held for the request that asks


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture(scope="module")
def service(artifact: Path, tmp_path_factory: pytest.TempPathFactory, shared_valkey: Valkey) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("limits")
    settings = {**PATIENT, "GPT4REC_RECEIVING_MIB": str(RECEIVING_MIB)}
    with serve(folder, "--artifact", str(artifact), "--redis", shared_valkey.url, **settings) as running:
        yield running


def said(service: Serve, *pieces: bytes, end: bool = True) -> bytes:
    """What is answered to bytes. With `end` the client ends its half, for requests that do not end the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
            if end:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent
        answer = b""
        try:
            while piece := client.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass  # closed with bytes unread
        return answer


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (414, b"GET /items/" + b"a" * 9000 + b"/similar HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n"),
        (414, b"GET /healthz?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n"),
        (431, ASK + b"".join(b"X-%d: b\r\n" % n for n in range(120)) + b"Connection: close\r\n\r\n"),
        (431, ASK + b"X-A: " + b"a" * 40_000 + b"\r\nConnection: close\r\n\r\n"),
    ],
    ids=["path", "query", "count", "size"],
)
def test_a_head_that_is_too_large_is_a_problem_document(service: Serve, status: int, request_: bytes) -> None:
    head, _, body = said(service, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"nosniff" in head
    assert orjson.loads(body)["status"] == status
    assert recommend(service, user_id="u1")["rung"] == "full"


def test_a_head_without_an_end_is_refused_before_it_fills_the_memory(service: Serve) -> None:
    answer = said(service, ASK, *[b"X-A: " + b"a" * 1000 + b"\r\n" for _ in range(2000)])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    unended = said(service, ASK + b"X-A: ", *[b"a" * 8000 for _ in range(500)])
    assert unended == b"" or unended.startswith(b"HTTP/1.1 431 ")
    assert recommend(service, user_id="u1")["rung"] == "full"


@pytest.mark.parametrize(
    "endless",
    [b"0\r\nX-A: " + b"a" * 8000, b"0\r\n" + b"X-A: b\r\n" * 1000, b"1;x=" + b"a" * 8000],
    ids=["trailer", "trailers", "chunk extension"],
)
def test_what_comes_with_a_body_and_is_none_has_an_end(service: Serve, endless: bytes) -> None:
    head = b"POST /recommend HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = said(service, head, endless, *[endless[-8000:] for _ in range(500)])
    assert b" 200 OK" not in answer
    assert recommend(service, user_id="u1")["rung"] == "full"


def test_fields_behind_a_body_are_no_headers(service: Serve) -> None:
    """Proxies check, replace and remove headers; what comes behind the body passes them."""
    body = b'{"mode":"auto","reason":"by a trailer"}'
    head = b"PUT /ops/fallback HTTP/1.1\r\nHost: l\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n%s\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    key = b"Authorization: Bearer tok\r\n"
    hidden = chunks + key + b"X-Request-Id: hidden\r\nContent-Encoding: gzip\r\n\r\n"
    for pieces in [
        (head % b"" + hidden,),
        (head % b"", hidden),
        (head % b"Connection: upgrade\r\nUpgrade: h2c\r\n" + hidden,),
    ]:
        answer = said(service, *pieces, end=False)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"hidden" not in answer
    assert said(service, head % key + chunks + b"X-A: b\r\n\r\n", end=False).startswith(b"HTTP/1.1 200 ")


def test_a_body_in_the_smallest_chunks_is_read(service: Serve) -> None:
    body = orjson.dumps({"user_id": "u1", "exclude": ["x" * 100] * 200})
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /recommend HTTP/1.1\r\nHost: l\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert said(service, head, chunks, end=False).startswith(b"HTTP/1.1 200 ")


def test_a_head_in_pieces_within_the_bounds_is_answered(service: Serve) -> None:
    pieces = [ASK[:10], ASK[10:], *[b"X-%d: " % n + b"b" * 250 + b"\r\n" for n in range(90)]]
    answer = said(service, *pieces, b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_large_body_is_no_large_head(service: Serve) -> None:
    body = orjson.dumps({"user_id": "u1", "exclude": ["x" * 100] * 900})
    head = b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: %d\r\n" % len(body)
    one = head + b"\r\n" + body
    answer = said(service, one + one + head[:30], head[30:] + b"Connection: close\r\n\r\n" + body, end=False)
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_client_that_leaves_before_its_second_answer_is_no_error(service: Serve) -> None:
    body = orjson.dumps({"user_id": "u1"})
    one = b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(10):
        said(service, one * 3)
    said(service, one * 200)  # cut off, as too many ahead of their answers
    recommend(service, user_id="u1")
    assert not [line for line in service.log.splitlines() if "request_failed" in line or "ASGI callable" in line]


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}    ",
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: 1e3\r\n\r\n{}",
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: l\r\nX-A : b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: l\r\n folded: b\r\n\r\n",
        b"CONNECT l:80 HTTP/1.1\r\nHost: l\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: l\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: l\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: l\r\nHost: m\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: l, m\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX-A: b\r\n\r\n",
        *(
            b"POST /recommend HTTP/1.%d\r\nHost: l\r\n%s\r\n\r\n0\r\n\r\n" % (minor, coding)
            for minor, coding in [
                (1, b"Transfer-Encoding: gzip, chunked"),
                (1, b"Transfer-Encoding: chunked, identity"),
                (1, b"Transfer-Encoding: identity"),
                (1, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
                (0, b"Transfer-Encoding: chunked"),
            ]
        ),
        b"CONNECT /healthz HTTP/1.1\r\nHost: l\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=[
        "both-lengths",
        "two-lengths",
        "negative",
        "float",
        "bad-chunk",
        "space",
        "folded",
        "connect",
        "host",
        "bytes",
        "two-hosts",
        "two-hosts-joined",
        "no-host",
        "coding",
        "coding-after",
        "identity",
        "two-codings",
        "coding-1.0",
        "connect-path",
        "http2",
        "tls",
    ],
)
def test_ambiguous_http_is_refused_and_ends_the_connection(service: Serve, request_: bytes) -> None:
    """So that no proxy in front can see another request in it than the service does."""
    answer = said(service, request_ + b"GET /version HTTP/1.1\r\nHost: l\r\n\r\n")
    assert b"model_version" not in answer
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 422 "))
    if answer.startswith(b"HTTP/1.1 400 "):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert orjson.loads(body)["type"] == "urn:gpt4rec:problem:bad_request"
    assert b"Traceback" not in answer


def sample(service: Serve, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"gpt4rec_{name}"))


def resident_mib(service: Serve) -> float:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def test_bodies_held_open_share_one_bound_and_others_are_served(service: Serve) -> None:
    """100 MB of bodies without an end: most are told to come again, and the memory does not grow with their number."""
    part = b"POST /events HTTP/1.1\r\nHost: l\r\nContent-Length: 1000000\r\n\r\n" + b" " * 999_000
    before = resident_mib(service)
    with ExitStack() as stack:
        clients = []
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S))
            with suppress(ConnectionError):
                client.sendall(part)
            clients.append(client)
        assert recommend(service, user_id="u1")["rung"] == "full"
        events = [{"user_id": "u1", "item_id": "1", "type": "view", "timestamp": 1, "query": "q" * 500}] * 500
        assert service.client.post("/events", json={"events": events}).status_code == 200
        until = time.monotonic() + WAIT_S
        while len(clients) - sample(service, "bodies_refused_total") > RECEIVING_MIB + 1:
            assert time.monotonic() < until
            assert sample(service, "unanswered_bytes") <= RECEIVING_MIB * MIB
        assert resident_mib(service) - before < 3 * RECEIVING_MIB


def test_answers_that_are_not_read_are_counted_until_the_client_is_gone(service: Serve) -> None:
    eventually(lambda: sample(service, "unanswered_bytes") <= AT_REST)  # connections of the test before may be closing
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", service.port))
        until = time.monotonic() + WAIT_S
        # One more after each look: the system takes megabytes of answers, and too many requests at once end it all.
        while sample(service, "unanswered_bytes") <= 20_000:
            assert time.monotonic() < until
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: l\r\n\r\n")
    eventually(lambda: sample(service, "unanswered_bytes") <= AT_REST)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_hostile_requests_are_refused_and_others_get_their_lists(service: Serve, artifact: Path, kind: Kind) -> None:
    """The short form of `python -m loadtests.reliability.hostile`."""
    requests = list(itertools.islice(kind.make(artifact), 12))
    to = Target("127.0.0.1", service.port, "localhost")

    async def send() -> Counter[str]:
        answer_s = 1.0 if kind.name == "bodies held open" else WAIT_S  # nothing answers an unfinished body
        return await send_all(to, requests, begins_at=0.0, rate=100.0, answer_s=answer_s)

    before = resident_mib(service)
    with ThreadPoolExecutor(1) as pool:
        outcomes = pool.submit(asyncio.run, send())
        while not outcomes.done():
            assert recommend(service, user_id="u1")["rung"] == "full"
    expected = {
        "error reports": {"422"},
        "filters": {"200"},
        "bodies held open": {"503", "408", "no answer"},
        "upgrades": {"400"},
    }
    assert set(outcomes.result()) <= expected[kind.name]
    assert resident_mib(service) - before < kind.grows_mib


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "tls": b"Connection: Upgrade\r\nUpgrade: TLS/1.3, h2c\r\n",
    "two": b"Connection: upgrade\r\nUpgrade: h2c\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
}
ASKED = b'{"user_id":"u","k":1}'
INNER = b"GET /version HTTP/1.1\r\nHost: l\r\n\r\n"


def pieces_of(request_: bytes, cut: int) -> list[bytes]:
    """The bytes in segments: after the head, in the middle of it, or all at once."""
    return [request_] if cut == 0 else [request_[:cut], request_[cut:]]


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
def test_an_upgrade_is_ignored_and_its_body_is_a_body(service: Serve, upgrade: bytes) -> None:
    """As the JDK's client asks for it with every first POST. What the body holds never runs as a request."""
    head = b"POST /recommend HTTP/1.1\r\nHost: l\r\n" + upgrade
    sized = head + b"Content-Length: %d\r\n\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: l\r\n" + upgrade + b"Connection: close\r\n\r\n"
    for body, status in ((ASKED, b"200"), (INNER, b"400")):
        for request_ in (sized % len(body) + body, chunked % (len(body), body)):
            for cut in (0, 10, request_.index(b"\r\n\r\n") + 4, len(request_) - 5):
                answer = said(service, *pieces_of(request_, cut), request_ + last, end=False)
                statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
                assert statuses == [status, status, b"200"], (cut, answer)
                assert b'model_version":' not in answer.split(b'"status":"ok"')[1]
                assert b"101 Switching" not in answer


def test_requests_of_one_connection_are_answered_in_order_however_they_are_cut(service: Serve) -> None:
    """Each with its own body or none, some with an upgrade, in segments that end anywhere."""
    chance = random.Random(2)
    host = b" HTTP/1.1\r\nHost: l\r\n"
    for _ in range(60):
        sent, expected = b"", []
        for number in range(chance.randrange(1, 6)):
            upgrade = chance.choice([b"", *UPGRADES.values()])
            named = b"X-Request-Id: r%d\r\n" % number
            body = chance.choice([ASKED, INNER, b"", b"GET"])
            match chance.randrange(4):
                case 0:
                    sent += b"GET /healthz" + host + upgrade + named + b"\r\n"
                case 1:
                    sent += b"HEAD /healthz" + host + upgrade + named + b"\r\n"
                case 2:
                    sent += b"POST /recommend" + host + upgrade + named
                    sent += b"Content-Length: %d\r\n\r\n" % len(body) + body
                case _:
                    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
                    sent += b"POST /recommend" + host + upgrade + named + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
            expected.append(b"r%d" % number)
        sent += b"GET /healthz" + host + b"Connection: close\r\nX-Request-Id: last\r\n\r\n" + INNER
        cuts = sorted(chance.randrange(len(sent)) for _ in range(chance.randrange(4)))
        pieces = [sent[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(sent)])]
        answer = said(service, *pieces, end=False)
        found = re.findall(rb"\r\nx-request-id: (\w+)\r\n", answer)
        assert found == [*expected, b"last"], (sent, answer)


def test_an_upgrade_hides_no_ambiguity(service: Serve) -> None:
    both = b"POST /recommend HTTP/1.1\r\nHost: l\r\n" + UPGRADES["h2c"] + b"%s\r\n\r\n0\r\n\r\n" + INNER
    for framing in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip, chunked",
    ):
        answer = said(service, both % framing)
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1, framing


def test_bytes_that_are_no_request_are_answered_after_the_requests_before_them(service: Serve) -> None:
    answer = said(service, INNER + b"NO REQUEST\r\n\r\n" + INNER, end=False)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]


def test_a_length_of_thousands_of_digits_is_a_length(service: Serve) -> None:
    zeros = b"Content-Length: " + b"0" * 5000 + b"%d\r\nConnection: close\r\n\r\n" % len(ASKED) + ASKED
    answer = said(service, b"POST /recommend HTTP/1.1\r\nHost: l\r\n" + zeros, end=False)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")), answer


def test_arbitrary_bytes_break_nothing(service: Serve) -> None:
    chance = random.Random(1)
    good = (
        b"POST /recommend HTTP/1.1\r\nHost: l\r\nContent-Length: 17\r\nX-Request-Start: t=1\r\n\r\n"
        + b'{"user_id": "u1"}'
    )
    for _ in range(150):
        broken = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        answer = said(service, bytes(broken) + b"\r\n\r\n")
        assert not answer.startswith(b"HTTP/1.1 5"), bytes(broken)
    assert recommend(service, user_id="u1")["rung"] == "full"
    assert "Traceback" not in service.log
    failed = [line for line in service.log.splitlines() if "request_failed" in line]
    assert not failed
