"""What happens to the process and to the files it serves: stops under load, and artefacts that are damaged in use."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from service.artifact.manifest import FILES, FORMAT_VERSION, MANIFEST
from tests.support.artifacts import write_artifact
from tests.support.processes import PATIENT, Serve, ids, items_of, post, recommend, serve
from tests.support.valkey import Valkey

WAIT_S = 30.0


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("others"), seed=1)


@pytest.fixture
def folder(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / artifact.name))


@pytest.fixture
def service(folder: Path, tmp_path: Path, valkey: Valkey) -> Iterator[Serve]:
    with serve(tmp_path, "--artifact", str(folder), "--redis", valkey.url, **PATIENT) as running:
        yield running


# -- stops


class Client(threading.Thread):
    """Asks again and again, on kept connections, until it is refused."""

    BODY = b'{"user_id": "u1"}'
    REQUEST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.answered, self.not_accepted, self.cut_off = 0, 0, list[str]()

    def run(self) -> None:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=WAIT_S)
            except OSError:  # refused, or gone before it was accepted: nothing was asked
                return
            with connection:
                self._ask(connection)

    def _ask(self, connection: socket.socket) -> None:
        answer = b""
        while b"connection: close" not in answer:
            try:
                answer = ask(connection, self.REQUEST)
            except OSError as error:
                if answer:
                    self.cut_off.append(repr(error))
                else:
                    self.not_accepted += 1
                return
            if not answer.endswith(b"}"):
                self.cut_off.append(f"{answer!r}")
                return
            self.answered += 1


def ask(connection: socket.socket, request: bytes) -> bytes:
    """The whole answer, a list; what there is of it where the connection ended."""
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"}") and (piece := connection.recv(1 << 16)):
        answer += piece
    assert not answer or b" 200 " in answer[:16], answer
    return answer


def test_a_stop_under_load_cuts_nothing_off(service: Serve) -> None:
    clients = [Client(service.port) for _ in range(8)]
    for client in clients:
        client.start()
    until = time.monotonic() + WAIT_S
    while min(client.answered for client in clients) < 5:
        assert time.monotonic() < until
        time.sleep(0.01)
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as quiet:
        service.process.terminate()
        assert b"connection: close" in ask(quiet, Client.REQUEST)
        assert service.process.wait(WAIT_S) == 0
    for client in clients:
        client.join(WAIT_S)
        assert not client.is_alive()
    assert [client.cut_off for client in clients] == [[]] * len(clients)
    # The kernel completes connections for a listener; one that does so in the very moment of its end is reset, which
    # no program can prevent. One that was accepted is answered.
    assert sum(client.not_accepted for client in clients) <= 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S)


def test_a_client_that_never_finishes_its_request_does_not_prevent_a_stop(
    artifact: Path, tmp_path: Path, valkey: Valkey
) -> None:
    settings = {**PATIENT, "GPT4REC_DRAIN_TIMEOUT_S": "1"}
    with (
        serve(tmp_path, "--artifact", str(artifact), "--redis", valkey.url, **settings) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as client,
    ):
        client.sendall(Client.REQUEST[:-3])
        assert recommend(service, user_id="u1")["rung"] == "full"
        assert service.stop() == 0


# -- the artefact, damaged in place


def corrupt(folder: Path, other: Path) -> tuple[str, ...]:
    for name in FILES:
        (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    return FILES


def truncated(folder: Path, other: Path) -> tuple[str, ...]:
    for name in FILES:
        os.truncate(folder / name, 100)
    return FILES


def deleted(folder: Path, other: Path) -> tuple[str, ...]:
    for name in FILES:
        (folder / name).unlink()
    return FILES


def swapped(folder: Path, other: Path) -> tuple[str, ...]:
    shutil.copyfile(other / "items.npz", folder / "items.npz")
    return ("items.npz",)


def newer(folder: Path, other: Path) -> tuple[str, ...]:
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest | {"format_version": FORMAT_VERSION + 1}))
    return (MANIFEST,)


@pytest.mark.parametrize("damages", [(corrupt, truncated, deleted, newer), (swapped,)], ids=["all files", "one file"])
def test_bad_artefact_is_refused_and_who_serves_it_already_goes_on(
    service: Serve, folder: Path, other: Path, damages: Sequence[Callable[[Path, Path], tuple[str, ...]]]
) -> None:
    """The one service bears one damage after the other; each is refused for what was done last."""
    items = items_of(folder)
    assert post(service, "u1", *items[:3]).status_code == 200
    asked = {"user_id": "u1", "k": 5, "seed": 1}
    before = ids(recommend(service, **asked))
    for damage, category in zip(damages, "abcd", strict=False):
        named = damage(folder, other)
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--artifact", str(folder)],
            capture_output=True, text=True, check=False, cwd=folder.parent,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        said = done.stderr.splitlines()[-1]
        assert any(name in said for name in named), (damage, said)
        assert ids(recommend(service, **asked)) == before, damage
        # Graphs and masks that nobody has needed yet.
        fresh = {"segment": "explorer", "filter": {"category": [category]}}
        for more in ({}, fresh, {"exclude": items[10:20]}, {"decoding": {"strategy": "temperature"}}):
            answer = recommend(service, user_id="u2", k=5, **more)
            assert (answer["rung"], answer["reason"]) in (("full", None), ("full", "not_enough_items")), damage
        assert service.client.get(f"/items/{items[0]}/similar").status_code == 200
        assert service.client.get("/readyz").json()["status"] == "ready"
