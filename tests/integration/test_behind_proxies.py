"""Replicas behind HAProxy and nginx, with the configurations of `deploy/`: headers, paths, and rolling changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from loadtests.fleet.proxies import NAMES, Proxy, installed, proxy
from loadtests.fleet.replicas import Release, Replica, replicas
from loadtests.fleet.rolling_rounds import Fleet, roll
from loadtests.harness.served_process import free_port
from loadtests.harness.valkey import TcpValkey
from service.artifact.artifact import Artifact

pytestmark = pytest.mark.fleet

OPERATOR = {"Authorization": "Bearer rolling-token"}
# Nothing listens at the third address of the configurations: a replica that is down costs nothing either.
RUNNING = 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for above in (tmp_path, *list(tmp_path.parents)[:2]):
        above.chmod(0o755)  # nginx may read it as another user
    return tmp_path


@pytest.fixture
def valkey_url(folder: Path) -> Iterator[str]:
    with TcpValkey(folder / "valkey", fsync="everysec") as server:
        yield server.url


def check_headers_and_paths(before: Proxy) -> None:
    with httpx.Client(base_url=before.url, timeout=30.0) as shop:
        long_ago = {"X-Request-Start": f"t={time.time() * 1000.0 - 5000.0:.0f}", "X-Forwarded-Prefix": "/evil"}
        answer = shop.post("/recommend", json={"user_id": "u", "k": 3, "budget_ms": 1900}, headers=long_ago)
        assert (answer.status_code, answer.json()["rung"]) == (200, "full")
        assert answer.headers["x-request-id"]
        named = shop.get("/version", headers={"X-Request-Id": "mine-1"})
        assert named.headers["x-request-id"] == "mine-1"
        document = shop.get("/openapi.json", headers=long_ago).json()
        assert "evil" not in str(document.get("servers"))
        below = shop.get("/shop/rec/v1/openapi.json").json()
        assert below["servers"][0]["url"].startswith("/shop/rec")
        # An encoded slash is part of an id, below the path as well.
        assert shop.get("/shop/rec/items/none%2Ffeatures/similar").status_code == 404
        for hidden in ("/ops", "/ops/status", "/v1/ops/status", "/%6fps/status", "/shop/rec/ops/status", "/metrics"):
            assert "gpt4rec" not in shop.get(hidden, headers=OPERATOR).text, hidden
            assert shop.get(hidden, headers=OPERATOR).status_code == 404, hidden
    status = httpx.get(f"{before.operators_url}/ops/status", headers=OPERATOR, timeout=30.0)
    assert status.status_code == 200


@pytest.mark.timeout(400)  # a machine that does other work as well
def test_shops_and_operators_get_through_and_a_rolling_change_costs_nothing(
    folder: Path, valkey_url: str, two_versions: tuple[Path, Path]
) -> None:
    names = [name for name in NAMES if installed(name)]
    if not names:
        pytest.skip(f"needs {' or '.join(NAMES)}")
    old, new = (Release(which, path) for which, path in zip(("old", "new"), two_versions, strict=True))
    items = list(Artifact.open(old.artifact).catalogue.item_ids)
    with ExitStack() as stack:
        running = stack.enter_context(replicas(folder, RUNNING, valkey_url, old))
        ports = [*(replica.port for replica in running), free_port()]
        for number, name in enumerate(names):
            with proxy(name, folder, ports) as before:
                check_headers_and_paths(before)
                fleet = Fleet(before, running[:1], valkey_url, items, rate=20.0)
                done = roll(fleet, "releases", number, (new, old)[number])
            assert (done.kinds, done.lost, done.killed) == ({}, 0, 0), log_of(running[0])
            assert done.lists
            assert done.events
            # A replica that has just come back gets few requests behind HAProxy, and perhaps none in so short a round.
            assert done.models.keys() <= {path.name for path in two_versions}


def log_of(replica: Replica) -> str:
    return replica.log.read_text(encoding="utf-8")[-2000:]


def test_replicas_that_pass_no_check_are_asked_all_the_same(folder: Path) -> None:
    if not installed("haproxy"):
        pytest.skip("needs haproxy")
    answers = {"/readyz": 503, "/version": 200}
    with answering(answers) as port, proxy("haproxy", folder, [port, free_port(), free_port()]) as before:
        until = time.monotonic() + 60.0
        while any(before.sends_to(place) for place in range(3)):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert httpx.get(f"{before.url}/version", timeout=30.0).status_code == 200


@contextmanager
def answering(statuses: dict[str, int]) -> Iterator[int]:
    """A server that answers each path with a status; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(statuses[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
