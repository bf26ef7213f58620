"""The roles as processes of their own, on one Redis or a cluster: nothing is lost, no list is stale, nothing fails."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from loadtests.harness.redis_cluster import RedisCluster
from service.engine.factory import open_engine
from service.history import state_blob
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.processes import OPS, PATIENT, Serve, T, event, ids, items_of, kept, recommend
from tests.support.valkey import TcpValkey

pytestmark = pytest.mark.fleet

ENCODER = {"GPT4REC_ENCODE_PATIENCE_S": "0.5"}
WITHIN_S = 60.0


class Fleet:
    """Starts processes of the service on one Redis, and asks what became of the states."""

    def __init__(self, stack: ExitStack, folder: Path, artifact: Path, redis_url: str) -> None:
        self._stack, self._folder, self.artifact, self._url = stack, folder, artifact, redis_url
        self._number = itertools.count()
        self.items = items_of(artifact)
        self.read_as(artifact)

    def read_as(self, artifact: Path) -> None:
        """Looks at the states of this model from now on."""
        engine = open_engine(artifact)
        self._encoder, self._layout = engine.artifact.encoder_version.name, engine.state_layout
        engine.close()

    def start(self, role: str, *, workers: int = 1, more: Mapping[str, str] | None = None) -> Serve:
        folder = self._folder / f"{role}-{next(self._number)}"
        folder.mkdir()
        arguments = ("--artifact", str(self.artifact), "--redis", self._url, "--role", role, "--workers", str(workers))
        settings = {**PATIENT, **ENCODER, **(more or {})}
        for last in (False, False, True):
            try:
                return self._stack.enter_context(kept(Serve(folder, *arguments, **settings)))
            except AssertionError as error:  # the ports of workers are free when they are chosen, and not yet theirs
                if last or "Address already in use" not in str(error):
                    raise
        raise AssertionError

    def outdated(self, users: Iterable[str]) -> list[str]:
        """The users whose stored state is not that of their log."""
        return asyncio.run(self._outdated(list(users)))

    async def _outdated(self, users: list[str]) -> list[str]:
        store = await Store.connect(StoreSettings(url=self._url, read_timeout_ms=5000, write_timeout_ms=5000))
        try:
            wanted = [(Subject("user", user), None) for user in users]
            records = await store.read_many(wanted, self._encoder)
        finally:
            await store.close()
        assert all(record is not None and record.events for record in records)
        states = [state_blob.unpack(record.blob, self._layout) if record is not None else None for record in records]
        return [
            user
            for user, state, record in zip(users, states, records, strict=True)
            if state is None or record is None or state.version != record.version
        ]


class Writer(threading.Thread):
    """Posts events of many users to several processes in turns, until it is stopped; a refused batch is sent again."""

    def __init__(self, fleet: Fleet, services: list[Serve], name: str) -> None:
        super().__init__()
        self._items, self._services, self._prefix = fleet.items, services, name
        self._ended = threading.Event()
        self.users: dict[str, int] = {}
        self.refused = 0

    def run(self) -> None:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(httpx.Client(base_url=one.client.base_url, timeout=30.0)) for one in self._services
            ]
            for number in itertools.count():
                if self._ended.is_set():
                    return
                self._post(clients[number % len(clients)], number)

    def _post(self, client: httpx.Client, number: int) -> None:
        user = f"{self._prefix}{number % 40}"
        body = {"events": [event(user, self._items[number % len(self._items)], T + number, event_id=str(number))]}
        give_up = time.monotonic() + WITHIN_S
        while (status := client.post("/events", json=body).status_code) != 200:
            assert status == 503
            assert time.monotonic() < give_up, f"refused for {WITHIN_S} s"
            self.refused += 1
            time.sleep(0.02)
        self.users[user] = self.users.get(user, 0) + 1

    @contextmanager
    def writing(self, at_least: int = 40) -> Iterator[None]:
        """Writes while the body runs, and until each user has an event."""
        self.start()
        try:
            yield
            until(lambda: sum(self.users.values()) >= at_least)
        finally:
            self._ended.set()
            self.join(WITHIN_S)


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {within_s} s"
        time.sleep(0.1)


def figure(service: Serve, *words: str) -> float:
    """The sum of the samples whose line has all these words."""
    lines = service.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line[:1] != "#" and all(w in line for w in words))


def hits(service: Serve) -> float:
    return figure(service, "gpt4rec_state_cache_total", 'level="state"', 'outcome="hit"')


def workers_of(service: Serve) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def valkey_on_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpValkey]:
    with TcpValkey(tmp_path_factory.mktemp("roles") / "valkey", fsync="everysec") as server:
        yield server


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, two_versions: tuple[Path, Path], valkey_on_tcp: TcpValkey
) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(stack, tmp_path_factory.mktemp("fleet"), two_versions[0], valkey_on_tcp.url)


@pytest.fixture(scope="module")
def answers(fleet: Fleet) -> list[Serve]:
    return [fleet.start("answer"), fleet.start("answer")]


@pytest.fixture(scope="module")
def encoder(fleet: Fleet) -> Serve:
    return fleet.start("encode")


def test_an_encoder_that_is_killed_loses_nothing_and_its_states_are_used(fleet: Fleet, answers: list[Serve]) -> None:
    """Two workers encode; one is killed with what it holds, while events come to two answering processes."""
    encoder = fleet.start("encode", workers=2)
    writer = Writer(fleet, answers, "kill")
    with writer.writing(at_least=200):
        until(lambda: len(writer.users) == 40)
        killed = min(workers_of(encoder))
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in workers_of(encoder))
    until(lambda: not fleet.outdated(writer.users))
    until(lambda: not figure(answers[0], "gpt4rec_encode_lag_entries"))
    assert not writer.refused
    for answer in answers:
        before_hits = hits(answer)
        for user in writer.users:
            assert recommend(answer, user_id=user, k=3)["rung"] == "full"
        assert hits(answer) - before_hits == len(writer.users)
    assert encoder.stop() == 0
    assert "encoding_broke" not in encoder.log


def test_without_an_encoder_lists_are_fresh_and_what_waits_is_done_by_the_next_one(
    fleet: Fleet, answers: list[Serve], valkey_on_tcp: TcpValkey, request: pytest.FixtureRequest
) -> None:
    """No encoder runs, and a user is erased from what waits; then one comes, and Redis is away for a while."""
    users = [f"late{n}" for n in range(10)]
    for n, user in enumerate([*users, "erased"]):
        item = fleet.items[n]
        assert answers[0].client.post("/events", json={"events": [event(user, item, T)]}).status_code == 200
        for answer in answers:
            shown = recommend(answer, user_id=user, k=len(fleet.items))
            assert shown["rung"] == "full"
            assert item not in ids(shown)
    until(lambda: figure(answers[0], "gpt4rec_encode_lag_entries") >= 11)
    # Of the requests' own encodings the states are stored too. What follows has only its entry.
    for user in [*users, "erased"]:
        more = [event(user, fleet.items[20], T + 1)]
        assert answers[1].client.post("/events", json={"events": more}).status_code == 200
    assert answers[0].client.delete("/users/erased", headers=OPS).status_code == 200
    encoder: Serve = request.getfixturevalue("encoder")
    until(lambda: not fleet.outdated(users))
    until(lambda: not figure(encoder, "gpt4rec_encode_lag_entries"))
    assert figure(encoder, "gpt4rec_encode_lag_seconds") == 0
    found = answers[0].client.get("/users/erased", headers=OPS)
    assert found.status_code == 404

    # And Redis that was away gets what waited for it.
    writer = Writer(fleet, answers, "away")
    with writer.writing(at_least=120):
        until(lambda: len(writer.users) == 40)
        valkey_on_tcp.kill9()
        assert recommend(answers[0], user_id="away0", k=3)["items"]
        valkey_on_tcp.start()
    until(lambda: not figure(answers[0], "gpt4rec_encode_waiting"))
    until(lambda: not figure(encoder, "gpt4rec_encode_lag_entries"))
    until(lambda: not fleet.outdated(writer.users))


def test_encoders_follow_a_new_model_and_have_states_ready_for_it(
    fleet: Fleet, answers: list[Serve], encoder: Serve, two_versions: tuple[Path, Path]
) -> None:
    """No request for a list comes: what the new model finds, the encoder has prepared, or encoded for it since."""
    second, answer = two_versions[1], answers[0]
    before, after = [f"before{n}" for n in range(5)], [f"after{n}" for n in range(5)]
    for n, user in enumerate(before):
        assert answer.client.post("/events", json={"events": [event(user, fleet.items[n], T)]}).status_code == 200
    until(lambda: not fleet.outdated(before))
    activated = answer.client.post(f"/ops/models/{second.name}/activate", headers=OPS, json={"reason": "a test"})
    assert activated.status_code == 200, activated.text
    until(lambda: encoder.client.get("/version").json()["model_version"] == second.name)
    for n, user in enumerate(after):
        assert answer.client.post("/events", json={"events": [event(user, fleet.items[n], T)]}).status_code == 200
    fleet.read_as(second)
    until(lambda: not fleet.outdated([*before, *after]))
    assert encoder.stop() == 0
    assert "encoding_broke" not in encoder.log


def test_a_change_from_all_to_roles_on_a_cluster_leaves_nothing_unencoded(
    tmp_path: Path, random_artifact: Path
) -> None:
    """Three primaries; the shards lie on all of them. Events come all the time, and no request for a list."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with RedisCluster(folder, replicas=0) as cluster, ExitStack() as stack:
        fleet = Fleet(stack, tmp_path, random_artifact, cluster.url)
        before = fleet.start("all")
        first = Writer(fleet, [before], "first")
        with first.writing(at_least=80):
            answer, encoder = fleet.start("answer"), fleet.start("encode")
        second = Writer(fleet, [answer], "second")
        with second.writing(at_least=120):
            assert before.stop() == 0
        until(lambda: not fleet.outdated([*first.users, *second.users]))
        assert not (first.refused or second.refused)
        assert figure(answer, "gpt4rec_encode_handed_total", 'outcome="handed"') > 0
        assert recommend(answer, user_id="first0", k=3)["rung"] == "full"
        assert hits(answer) == 1
        assert encoder.client.get("/readyz").json()["status"] == "ready"
        assert encoder.stop() == 0
        assert answer.stop() == 0
