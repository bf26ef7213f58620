"""Clients that are slow, silent or greedy: they hold their own connection and nothing else."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import orjson
import pytest

from tests.support.processes import PATIENT, Serve, T, event, history, ids, items_of, post, recommend, serve
from tests.support.valkey import Valkey

TIMEOUT_S = 1.0
SHORT = {**PATIENT, "GPT4REC_CLIENT_TIMEOUT_S": str(TIMEOUT_S)}
HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n"
WAIT_S = 20.0
SOFT_LIMIT = 256


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture(scope="module")
def service(artifact: Path, tmp_path_factory: pytest.TempPathFactory, shared_valkey: Valkey) -> Iterator[Serve]:
    """One for all these clients: what one of them does is over when the next one comes."""
    folder = tmp_path_factory.mktemp("serve")
    settings = {**SHORT, "GPT4REC_REDIS_PREFIX": "client-faults:"}
    with serve(folder, "--artifact", str(artifact), "--redis", shared_valkey.url, **settings) as running:
        yield running


def connect(service: Serve, *, receive_bytes: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(WAIT_S)
    client.connect(("127.0.0.1", service.port))
    return client


def until_closed(client: socket.socket) -> bytes:
    """All that the service says before it ends the connection."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("sent", "piece"),
    [(HEAD, b"X-A: b\r\n"), (HEAD + b"\r\n", b" "), (b"\r\n", b"\r\n")],
    ids=["head", "body", "blank"],
)
def test_a_request_that_trickles_in_is_ended_and_others_are_served(service: Serve, sent: bytes, piece: bytes) -> None:
    """A byte now and then does not prolong it."""
    before = too_slow(service)
    with connect(service) as client:
        began = time.monotonic()
        client.sendall(sent)
        while time.monotonic() - began < 0.8 * TIMEOUT_S:
            client.sendall(piece)
            assert recommend(service, user_id="u1")["rung"] == "full"
        head, _, body = until_closed(client).partition(b"\r\n\r\n")
        assert time.monotonic() - began < 4.0 * TIMEOUT_S
    assert head.startswith(b"HTTP/1.1 408 ") and b"connection: close" in head.lower()
    if sent.startswith(HEAD + b"\r\n"):
        assert orjson.loads(body)["type"] == "urn:gpt4rec:problem:too_slow"
        assert too_slow(service) == before + 1
    until = time.monotonic() + WAIT_S
    while "gpt4rec_inflight 1.0" not in service.client.get("/metrics").text:  # the question itself
        assert time.monotonic() < until


def too_slow(service: Serve) -> float:
    """How many requests for lists were ended because they came too slowly."""
    lines = service.client.get("/metrics").text.splitlines()
    family, labels = "gpt4rec_request_duration_seconds_count", 'route="/recommend",source="",status="408"'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(family) and labels in line)


def test_a_client_that_sends_slowly_but_in_time_is_served(service: Serve) -> None:
    body = b'{"user_id": "u1"}'
    head = HEAD.replace(b"9999", str(len(body)).encode()) + b"Connection: close\r\n\r\n"
    with connect(service) as client:
        for byte in (head[:9], head[9:], *(body[n : n + 4] for n in range(0, len(body), 4))):
            client.sendall(byte)
            time.sleep(TIMEOUT_S / 20)
        assert b'"rung":"full"' in until_closed(client)


def test_a_client_that_does_not_read_is_cut_off(service: Serve) -> None:
    """It asks for more than its connection holds, and takes none of it."""
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(service, receive_bytes=4096) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < WAIT_S:
                client.sendall(request * 10)
                assert recommend(service, user_id="u1")["rung"] == "full"


def test_a_flood_of_requests_ahead_of_their_answers_is_cut_off(service: Serve) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(service) as client:
        client.sendall(request * 1000)
        assert recommend(service, user_id="u1")["rung"] == "full"
        with suppress(ConnectionError):
            assert until_closed(client).count(b"HTTP/1.1 200") < 1000
    with connect(service) as client:
        client.sendall(request * 20 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert until_closed(client).count(b"HTTP/1.1 200") == 21


@contextmanager
def few_files() -> Iterator[None]:
    """What is started here may open as few files as processes may at first on many systems, but ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_beyond_the_soft_limit_of_files_harm_nobody(
    artifact: Path, tmp_path: Path, shared_valkey: Valkey
) -> None:
    with ExitStack() as stack:
        with few_files():
            where = ("--artifact", str(artifact), "--redis", shared_valkey.url)
            settings = {**PATIENT, "GPT4REC_REDIS_PREFIX": "few-files:"}
            service = stack.enter_context(serve(tmp_path, *where, **settings))
        idle = [stack.enter_context(connect(service)) for _ in range(2 * SOFT_LIMIT)]
        assert recommend(service, user_id="u1")["rung"] == "full"
        assert httpx.get(f"{service.client.base_url}/readyz", timeout=WAIT_S).json()["status"] == "ready"
        for client in idle[:: SOFT_LIMIT // 2]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert until_closed(client).startswith(b"HTTP/1.1 200")


def test_a_flood_for_one_user_harms_no_other(service: Serve, artifact: Path) -> None:
    """Hundreds of events and lists of one user at once: all are stored, in order, and others get their lists."""
    items = items_of(artifact)
    batches = [
        [event("flood", items[n % len(items)], T + n, event_id=f"f{n}") for n in range(first, first + 50)]
        for first in range(0, 2000, 50)
    ]
    assert post(service, "other", *items[:5]).status_code == 200

    def write(batch: list[dict[str, object]]) -> int:
        return service.client.post("/events", json={"events": batch}).status_code

    def ask(n: int) -> dict[str, object]:
        return recommend(service, user_id="flood" if n % 2 else "other", k=5)

    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(ask, range(200))
        assert set(pool.map(write, batches)) == {200}
        for number, answer in enumerate(answers):
            if number % 2 == 0:
                assert not set(ids(answer)) & set(items[:5])
                assert answer["rung"] == "full", (answer["reason"], answer["latency_ms"])
    kept = [one["event_id"] for one in history(service, "flood")]
    assert kept == [f"f{n}" for n in range(2000)][-len(kept) :]
    assert recommend(service, user_id="flood", k=5, exclude_seen=False)["rung"] == "full"
