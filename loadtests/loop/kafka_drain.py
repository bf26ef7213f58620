"""How many events a second the intake stores from a topic that is full before it starts, states encoded beside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import orjson

from loadtests.harness.ingest_process import IngestProcess
from loadtests.harness.kafka_broker import KafkaBroker
from loadtests.harness.valkey import TcpValkey

TOPIC = "events"
EVENTS = 20_000
_PARTITIONS = 4
_T = 1_700_000_000_000
_MINUTE_MS = 60_000
_LOOK_S = 0.1
_PATIENCE_S = 120.0
_SETTINGS = {
    "GPT4REC_KAFKA_OPTIONS": "fetch.wait.max.ms=5",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000",
}


def measure(
    folder: Path,
    artifact: Path,
    items: Sequence[str],
    *,
    events: int = EVENTS,
    users: int,
    advance: Callable[[int], None] = lambda _: None,
) -> float:
    """Returns the events a second, from the first look that found some in the store to the one that found all.

    Args:
        folder: For logs and the server's data.
        artifact: Artefact folder.
        items: Its items.
        events: How many.
        users: Of how many users, in turn.
        advance: Called with how many more are stored.

    Raises:
        TimeoutError: Nothing more is stored for a while.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(folder))
        valkey = stack.enter_context(TcpValkey(folder / "valkey", fsync="everysec"))
        broker.create({TOPIC: _PARTITIONS, f"{TOPIC}-dead-letters": 1})
        _fill(broker.brokers, items, events, users)
        intake = stack.enter_context(
            IngestProcess(folder, artifact, valkey.url, broker.brokers, "--topic", TOPIC, "--log-level", "warning",
                          **_SETTINGS)
        )  # fmt: skip
        began, first, stored = 0.0, 0, 0
        until = time.monotonic() + _PATIENCE_S
        while stored < events:
            now, before = time.perf_counter(), stored
            stored = int(intake.metrics().get('gpt4rec_intake_messages_total{outcome="stored"}', 0.0))
            if stored > before:
                began, first = (began, first) if before else (now, stored)
                until = time.monotonic() + _PATIENCE_S
                advance(stored - before)
            elif time.monotonic() > until:
                raise TimeoutError(f"{stored} of {events} events are stored, and no more come")
            time.sleep(_LOOK_S)
        return (stored - first) / (now - began)


def _fill(brokers: str, items: Sequence[str], events: int, users: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "log_level": 0})
    for number in range(events):
        body = {"user_id": f"drain{number % users}", "item_id": items[(number * 13 + 5) % len(items)], "type": "click",
                "timestamp": _T + number // users * _MINUTE_MS, "event_id": f"d{number}"}  # fmt: skip
        producer.produce(TOPIC, key=str(body["user_id"]), value=orjson.dumps(body))
        producer.poll(0)
    if producer.flush(_PATIENCE_S):
        raise TimeoutError("the broker does not confirm the events")
    producer.close()
