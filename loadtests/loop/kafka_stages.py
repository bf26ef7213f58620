"""The stages of an event on its way into a list, at a steady rate: action → broker → features → model.

    broker    from the action to the confirmation of all replicas
    store     from there until the event is in the log in Valkey
    state     from there until the state that includes it is in Valkey: encoded behind the event, in the intake
    list      from there until an answer of /recommend that reflects it, asked for at once
    all       from the action to that answer

Valkey tells of each write when it has made it (keyspace notifications), so nothing inside the processes is changed. All
times are taken in this process, so what it takes to hear of a write counts too. An answer reflects the event if the
item is not in the list, from which seen items are excluded.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import redis

from loadtests.harness.ingest_process import IngestProcess
from loadtests.harness.kafka_broker import KafkaBroker
from loadtests.harness.served_process import serve
from loadtests.harness.valkey import TcpValkey
from service.store.records import Subject

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

TOPIC = "events"
STAGES = ("broker", "store", "state", "list", "all")
PARTITIONS = 4
HISTORY = 20
_PREFIX = "gpt4rec:"
_MINUTE_MS = 60_000
# Lists are asked for after every such event only: this measures a way, not the throughput of lists.
_ASK_EVERY = 10
_ASKERS = 2
_SETTLED_S = 0.2
_PATIENCE_S = 60.0
# A busy machine must not look like a store that is away.
_PATIENT = {"GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000"}
_SETTINGS = {
    # The broker of the tests does not end a waiting fetch when messages come; Apache Kafka does.
    "GPT4REC_KAFKA_OPTIONS": "fetch.wait.max.ms=5",
    **_PATIENT,
}


@dataclass(slots=True)
class Way:
    """One event, and when it reached each stage, in seconds of `perf_counter`; 0.0 if it has not."""

    user: str
    item: str
    asked: bool
    action: float = 0.0
    broker: float = 0.0
    store: float = 0.0
    state: float = 0.0
    list: float = 0.0
    reflected: bool = True


@dataclass(slots=True)
class Found:
    """Every event's stages in milliseconds, and what went wrong."""

    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    unfinished: int = 0
    stale: int = 0
    failed: int = 0

    def add(self, other: Found) -> None:
        """Takes what another round found."""
        for name, times in other.stages.items():
            self.stages[name] += times
        self.unfinished += other.unfinished
        self.stale += other.stale
        self.failed += other.failed


def measure(
    folder: Path,
    artifact: Path,
    items: Sequence[str],
    *,
    rate: float,
    seconds: float,
    users: int,
    advance: Callable[[], None] = lambda: None,
) -> Found:
    """Sends events at a steady rate to users with a history, and follows each of them.

    Args:
        folder: For logs and the server's data.
        artifact: Artefact folder.
        items: Its items.
        rate: Events a second, over all users in turn.
        seconds: How long.
        users: How many; a user's next event comes after `users / rate` seconds.
        advance: Called after each event that was sent.

    Raises:
        TimeoutError: The histories, or the intake, are not ready in time.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(folder))
        options: Any = {"notify-keyspace-events": "K$z"}  # of strings and sorted sets, by key
        valkey = stack.enter_context(TcpValkey(folder / "valkey", fsync="everysec", **options))
        broker.create({TOPIC: PARTITIONS, f"{TOPIC}-dead-letters": 1})
        intake = stack.enter_context(
            IngestProcess(folder, artifact, valkey.url, broker.brokers, "--topic", TOPIC, "--log-level", "warning",
                          **_SETTINGS)
        )  # fmt: skip
        service = stack.enter_context(serve(artifact, "--redis", valkey.url, **_PATIENT))
        names = [f"stage{number}" for number in range(users)]
        _load_histories(service.url, names, items)
        _until(lambda: bool(intake.partitions()))
        follower = stack.enter_context(_Follower(valkey.url, service.url))
        ways = _send(broker.brokers, names, items, rate, seconds, follower, advance)
        follower.finish(ways)
        return _found(ways, follower)


def _load_histories(url: str, names: Sequence[str], items: Sequence[str]) -> None:
    """Gives each user a history, and waits until all are encoded."""
    client = _client(url)
    start_ms = int(time.time() * 1000) - 10_000 * _MINUTE_MS
    for number, name in enumerate(names):
        events = [
            {"user_id": name, "item_id": items[(number * 7 + n) % len(items)], "type": "click",
             "timestamp": start_ms + n * _MINUTE_MS}
            for n in range(min(HISTORY, len(items) // 2))
        ]  # fmt: skip
        _post(client, "/events", {"events": events})
        _post(client, "/recommend", {"user_id": name, "k": 1, "budget_ms": 2000})
    client.close()
    time.sleep(_SETTLED_S)


class _Follower:
    """Hears of writes, asks for lists, and notes the times on the ways of the users."""

    def __init__(self, redis_url: str, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(redis_url)
        self._url = url
        # Per user: events that are on their way to the log, and to the state, oldest first.
        self._to_store: dict[str, deque[Way]] = {}
        self._to_state: dict[str, deque[Way]] = {}
        self._to_list: queue.SimpleQueue[Way | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._listening = threading.Event()
        self.failed = 0
        self._threads = [threading.Thread(target=self._listen), *(threading.Thread(target=self._ask)
                         for _ in range(_ASKERS))]  # fmt: skip

    def expect(self, way: Way) -> None:
        """Follows an event that is about to be sent."""
        self._to_store.setdefault(way.user, deque()).append(way)

    def finish(self, ways: Sequence[Way]) -> None:
        """Waits until every event has arrived, or nothing more does."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and any(map(_open, ways)):
            time.sleep(_SETTLED_S)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=False) as heard:
            heard.psubscribe(f"__keyspace@*__:{_PREFIX}{{u:stage*")
            while not self._stop.is_set():
                message = heard.get_message(timeout=0.2)
                if message is None:
                    continue
                if message["type"] == "psubscribe":
                    self._listening.set()
                else:
                    self._note(message["channel"].decode(), message["data"], time.perf_counter())

    def _note(self, channel: str, command: bytes, now: float) -> None:
        tag, _, key = channel.partition(_PREFIX)[2].partition("}:")
        subject = Subject.of_tag(tag + "}")
        if subject is None:
            return
        if key == "events" and command == b"zadd" and (waiting := self._to_store.get(subject.id)):
            way = waiting.popleft()
            way.store = now
            self._to_state.setdefault(subject.id, deque()).append(way)
        elif key.startswith("state:") and command == b"set":
            # One state includes every event that was in the log before.
            for way in self._to_state.pop(subject.id, ()):
                way.state = now
                if way.asked:
                    self._to_list.put(way)

    def _ask(self) -> None:
        client = _client(self._url)
        while (way := self._to_list.get()) is not None:
            try:
                body = {"user_id": way.user, "k": 10, "exclude_seen": True}
                answer = _post(client, "/recommend", body)
                way.reflected = way.item not in [item["item_id"] for item in answer["items"]]
                way.list = time.perf_counter()
            except (OSError, http.client.HTTPException):
                self.failed += 1
                client.close()
        client.close()

    def __enter__(self) -> _Follower:
        for thread in self._threads:
            thread.start()
        if not self._listening.wait(_PATIENCE_S):
            raise TimeoutError("Valkey does not tell of its writes")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for _asker in range(_ASKERS):
            self._to_list.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        self._redis.close()


def _send(
    brokers: str,
    names: Sequence[str],
    items: Sequence[str],
    rate: float,
    seconds: float,
    follower: _Follower,
    advance: Callable[[], None],
) -> list[Way]:
    """Sends at the rate whatever happens (open loop), with a thread that hears of the confirmations."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "linger.ms": 0, "log_level": 0})
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            producer.poll(0.05)

    poller = threading.Thread(target=poll)
    poller.start()
    ways: list[Way] = []
    began = time.perf_counter()
    try:
        for number in range(int(rate * seconds)):
            wait = began + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            way = Way(names[number % len(names)], items[(number * 13 + 5) % len(items)], number % _ASK_EVERY == 0)
            ways.append(way)
            follower.expect(way)
            body = {"user_id": way.user, "item_id": way.item, "type": "click", "timestamp": int(time.time() * 1000),
                    "event_id": f"s{number}"}  # fmt: skip
            value = orjson.dumps(body)
            way.action = time.perf_counter()
            producer.produce(TOPIC, key=way.user, value=value, on_delivery=_confirmed(way))
            advance()
        producer.flush(_PATIENCE_S)
    finally:
        stop.set()
        poller.join()
        producer.close()
    return ways


def _confirmed(way: Way) -> Callable[[KafkaError | None, Message[bytes, bytes]], None]:
    def note(error: KafkaError | None, _: Message[bytes, bytes]) -> None:
        if error is None:
            way.broker = time.perf_counter()

    return note


def _open(way: Way) -> bool:
    return not (way.broker and way.state and (way.list or not way.asked))


def _found(ways: Sequence[Way], follower: _Follower) -> Found:
    found = Found(failed=follower.failed)
    for way in ways:
        if _open(way):
            found.unfinished += 1
            continue
        times = [way.action, way.broker, way.store, way.state]
        stages = ["broker", "store", "state"]
        if way.asked:
            times.append(way.list)
            stages.append("list")
            found.stages["all"].append((way.list - way.action) * 1000.0)
            found.stale += not way.reflected
        for name, start, end in zip(stages, times, times[1:], strict=False):
            # A consumer may be quicker than the confirmation to the producer.
            found.stages[name].append(max(0.0, end - start) * 1000.0)
    return found


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the intake gets no partition")
        time.sleep(0.05)


def _client(url: str) -> http.client.HTTPConnection:
    host, _, port = url.removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=_PATIENCE_S)


def _post(client: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    client.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json"})
    answer = client.getresponse()
    content = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise OSError(f"{path}: {answer.status} {content[:200]!r}")
    found: dict[str, Any] = orjson.loads(content)
    return found
