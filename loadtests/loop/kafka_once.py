"""Every event once, though a consumer joins, another one is killed, and the broker is killed and started again.

What is checked is the log in Valkey, event by event: each id that was sent is there, and there once. The broker's disk
is an object store that outlives it, so what it acknowledged is there after the restart, as with Kafka.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import redis

from loadtests.harness.ingest_process import IngestProcess
from loadtests.harness.kafka_broker import KafkaBroker
from loadtests.harness.object_store import ObjectStore
from loadtests.harness.valkey import TcpValkey
from service.store.records import Subject, parse_events

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

TOPIC = "events"
PARTITIONS = 8
EVENTS_OF_A_USER = 50
PREFIX = "gpt4rec:"
_T = 1_700_000_000_000
_SETTINGS = {
    # No log is cut off, so that everything can be counted.
    "GPT4REC_HISTORY_CAP": "200",
    # A busy machine must not look like a store that is away.
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000",
    # The dead member is noticed sooner; the wait of a fetch is long for a broker that does not end it at new messages.
    "GPT4REC_KAFKA_OPTIONS": "session.timeout.ms=3000,heartbeat.interval.ms=300,fetch.wait.max.ms=50",
}
# Without any progress for so long, a round has failed.
_STALLED_S = 120.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round.

    Attributes:
        sent: Events that the broker acknowledged.
        once: Events that are in the log exactly once.
        missing: Events that are not there.
        twice: Events that are there more than once.
        foreign: Entries that nobody sent.
        redelivered: Events that the intake read again, and the store recognised.
        seconds: From the first event to the last one in the store.
    """

    number: int
    sent: int
    once: int
    missing: int
    twice: int
    foreign: int
    redelivered: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns the fields."""
        return asdict(self)


class Scene:
    """Broker, store and intake of the rounds; the intake is replaced when it is killed."""

    def __init__(self, folder: Path, artifact: Path, broker: KafkaBroker, valkey: TcpValkey) -> None:
        self._folder, self._artifact = folder, artifact
        self.broker, self.valkey = broker, valkey
        self.redis = redis.Redis.from_url(valkey.url)
        self.intake = self._start()

    def add_intake(self) -> IngestProcess:
        """Starts another intake beside the present one, and waits until they share the partitions."""
        other = self._start()
        try:
            _wait(lambda: bool(other.partitions()))
        except BaseException:
            other.close()
            raise
        return other

    def kill_intake(self, successor: IngestProcess) -> None:
        """Kills the present intake; its successor gets its partitions."""
        self.intake.kill9()
        self.intake = successor

    def close(self) -> None:
        """Ends the intake."""
        self.intake.close()
        self.redis.close()

    def duplicates(self) -> int:
        """Returns how many events the present intake found in the store already."""
        return int(self.intake.metrics()['gpt4rec_intake_events_total{outcome="duplicate"}'])

    def _start(self) -> IngestProcess:
        return IngestProcess(
            self._folder, self._artifact, self.valkey.url, self.broker.brokers, "--topic", TOPIC,
            "--log-level", "warning", **_SETTINGS,
        )  # fmt: skip


@contextmanager
def scene(folder: Path, artifact: Path) -> Iterator[Scene]:
    """Runs broker, store and intake until the body ends."""
    with ExitStack() as stack:
        store = stack.enter_context(ObjectStore())
        broker = stack.enter_context(KafkaBroker(folder, store))
        valkey = stack.enter_context(TcpValkey(folder / "valkey", fsync="everysec"))
        broker.create({TOPIC: PARTITIONS, f"{TOPIC}-dead-letters": 1})
        running = Scene(folder, artifact, broker, valkey)
        stack.callback(running.close)
        yield running


def run_round(
    scene: Scene, number: int, events: int, items: Sequence[str], advance: Callable[[int], None] = lambda _: None
) -> Round:
    """Sends events, has a second intake join, kills the first one and then the broker, and counts.

    Args:
        scene: What runs.
        number: Of the round; each has users and events of its own.
        events: How many to send.
        items: Items to click on.
        advance: Called with how many more events are in the store.

    Raises:
        TimeoutError: Nothing was stored any more before all was.
        OSError: The intake ended by itself, or the broker did not take every event.
    """
    began = time.monotonic()
    subjects = [Subject("user", f"r{number}u{user}") for user in range(max(1, events // EVENTS_OF_A_USER))]
    waiting = _Waiting(scene, subjects, advance)

    with _Sending(scene.broker.brokers, number, subjects, items) as sending:
        sending.send(events // 3)
        waiting.until(1)
        successor = scene.add_intake()
        sending.send(events // 3)
        waiting.until(waiting.count() + 1)  # both are at work
        scene.kill_intake(successor)
        sending.send(events // 6)
        scene.broker.restart()
        acknowledged = sending.all(events)
    waiting.until(len(acknowledged))
    found = Counter(_stored(scene.redis, subjects))
    once = sum(found[name] == 1 for name in acknowledged)
    return Round(
        number=number,
        sent=len(acknowledged),
        once=once,
        missing=sum(name not in found for name in acknowledged),
        twice=sum(count > 1 for count in found.values()),
        foreign=sum(count for name, count in found.items() if name not in acknowledged),
        redelivered=scene.duplicates(),
        seconds=round(time.monotonic() - began, 1),
    )


class _Sending:
    """A producer of clicks, at least once: what the broker did not confirm before it died is sent again."""

    def __init__(self, brokers: str, number: int, subjects: Sequence[Subject], items: Sequence[str]) -> None:
        from confluent_kafka import Producer

        self._producer = Producer({
            "bootstrap.servers": brokers, "acks": "all", "linger.ms": 20, "message.timeout.ms": 120_000,
            "reconnect.backoff.max.ms": 500, "log_level": 0,
        })  # fmt: skip
        self._number, self._subjects, self._items = number, subjects, items
        self._sent = 0
        self._acknowledged: set[str] = set()
        self._failed: list[str] = []

    def send(self, events: int) -> None:
        """Sends so many more events, without waiting for the last of them."""
        for sent in range(self._sent, self._sent + events):
            name, subject = f"{self._number}-{sent}", self._subjects[sent % len(self._subjects)]
            body = {"user_id": subject.id, "item_id": self._items[sent % len(self._items)], "type": "click",
                    "timestamp": _T + sent, "event_id": name}  # fmt: skip
            self._produce(name, orjson.dumps(body))
        self._sent += events

    def all(self, events: int) -> set[str]:
        """Sends the rest of so many events; returns the ids of those that the broker confirmed: all.

        Raises:
            OSError: It did not confirm all.
        """
        self.send(events - self._sent)
        if self._producer.flush(_STALLED_S) or self._failed:
            raise OSError(f"the broker did not take every event: {self._failed[:1]}")
        return self._acknowledged

    def _produce(self, name: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(TOPIC, key=name, value=value, on_delivery=self._report)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _report(self, error: KafkaError | None, message: Message[bytes, bytes]) -> None:
        if error is None:
            self._acknowledged.add((message.key() or b"").decode())
        else:
            self._failed.append(error.str())

    def __enter__(self) -> _Sending:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.purge()
        self._producer.close()


class _Waiting:
    """Waits until the store has so many events of the subjects."""

    def __init__(self, scene: Scene, subjects: Sequence[Subject], advance: Callable[[int], None]) -> None:
        self._scene, self._subjects, self._advance = scene, subjects, advance
        self._seen = 0

    def until(self, wanted: int) -> None:
        """Waits for so many. Raises TimeoutError if nothing is added any more."""
        moved_at = time.monotonic()
        while (count := self.count()) < wanted:
            if count > self._seen:
                moved_at = time.monotonic()
            elif self._scene.intake.process.poll() is not None:
                raise OSError(f"the intake ended: {self._scene.intake.messages[-1500:]}")
            elif time.monotonic() - moved_at > _STALLED_S:
                raise TimeoutError(f"{count} of {wanted} events are in the store, and no more come")
            self._note(count)
            time.sleep(_LOOK_S)
        self._note(count)

    def _note(self, count: int) -> None:
        self._advance(max(0, count - self._seen))
        self._seen = max(count, self._seen)

    def count(self) -> int:
        """Returns how many there are."""
        pipeline = self._scene.redis.pipeline(transaction=False)
        for subject in self._subjects:
            pipeline.zcard(f"{PREFIX}{subject.tag}:events")
        return sum(pipeline.execute())


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _STALLED_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the second intake gets no partition")
        time.sleep(_LOOK_S)


def _stored(client: redis.Redis, subjects: Sequence[Subject]) -> Iterator[str]:
    """Yields the id of every event in the logs."""
    pipeline = client.pipeline(transaction=False)
    for subject in subjects:
        pipeline.zrange(f"{PREFIX}{subject.tag}:events", 0, -1)
    for members in pipeline.execute():
        flat = [part for member in members for part in (member, b"0")]
        yield from (event.event_id for event in parse_events(flat))
