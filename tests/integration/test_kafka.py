"""Kafka: a real broker, real processes, a real Valkey."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from loadtests.harness.kafka_broker import KafkaBroker
from service.common.errors import SettingsError
from service.exposures.exposure import erased_entry
from service.exposures.list_ids import ListIds
from service.intake.exposures import exposure_topic
from service.intake.kafka_options import producer_options
from service.intake.records import DeliveryFailed, Outgoing
from service.settings.loader import load_kafka
from tests.support.aio import asynchronous
from tests.support.kafka import broker, messages_of, needs_kafka
from tests.support.processes import items_of
from tests.support.sink_world import NOW_MS, shown, world
from tests.support.valkey import Valkey

__all__ = ["broker"]
pytestmark = needs_kafka

_TOPICS = itertools.count()


def made(broker: KafkaBroker, **config: str) -> str:
    """A topic of the test's own."""
    name = f"topic-{next(_TOPICS)}"
    broker.create({name: 1}, **config)
    return name


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_event_is_stored_once_though_a_consumer_joins_one_is_killed_and_the_broker_too(
    random_artifact: Path, tmp_path: Path
) -> None:
    from confluent_kafka import Producer

    from loadtests.loop import kafka_once

    with kafka_once.scene(tmp_path, random_artifact) as scene:
        found = kafka_once.run_round(scene, 0, 3000, items_of(random_artifact))
        assert (found.sent, found.once) == (3000, 3000), found
        assert (found.missing, found.twice, found.foreign) == (0, 0, 0), found

        scene.valkey.fill_memory()
        good = {"user_id": "u", "item_id": "1", "type": "view", "timestamp": 1_700_000_000_000}
        producer = Producer({"bootstrap.servers": scene.broker.brokers, "log_level": 0})
        producer.produce(kafka_once.TOPIC, value=orjson.dumps({"events": [good, {**good, "type": ""}]}))
        assert producer.flush(30.0) == 0
        until(lambda: scene.intake.metrics()["gpt4rec_intake_paused"] == 1)
        assert scene.redis.zcard("gpt4rec:{u:u}:events") == 0
        scene.valkey.free_memory()
        [letter] = messages_of(scene.broker.brokers, f"{kafka_once.TOPIC}-dead-letters", 1)
        assert orjson.loads(letter.value() or b"") == {**good, "type": ""}
        assert dict(letter.headers() or [])["gpt4rec-event"] == b"1"
        assert scene.redis.zcard("gpt4rec:{u:u}:events") == 1
        assert scene.intake.stop() == 0, scene.intake.messages


@asynchronous
async def test_exposures_are_keyed_messages_and_an_erasure_leaves_tombstones_of_that_subject_alone(
    broker: KafkaBroker,
) -> None:
    topic = made(broker, **{"cleanup.policy": "compact"})
    drawn = {"candidates": np.arange(3, dtype=np.uint32), "candidate_scores": np.full(3, 0.5, np.float32)}
    after = ListIds().new(2_000)
    lists: list[tuple[str, str, dict[str, Any]]] = [
        ("u:a", "L1", drawn), ("u:b", "L2", {}), ("u:a:b", "L3", {}), ("u:a", "L4", {}), ("u:a", after, {}),
    ]  # fmt: skip
    shown = [{"subject": subject, "list_id": name, "items": ["1"], **more} for subject, name, more in lists]
    async with exposure_topic(load_kafka(kafka_brokers=broker.brokers, kafka_exposures_topic=topic)) as exposures:
        assert await exposures.forward(shown) == 5
        assert await exposures.erase({"u:a": 1_999, "u:nobody": 1_999}) == 2
        assert await exposures.erase({"u:a": 1_999}) == 0  # they are erased already
        assert await exposures.erase({}) == 0
    written = messages_of(broker.brokers, topic, 7)
    keys = [(one.key() or b"").decode() for one in written]
    assert keys == ["u:a:L1", "u:b:L2", "u:a:b:L3", "u:a:L4", f"u:a:{after}", "u:a:L1", "u:a:L4"]
    assert [one.value() is None for one in written] == [False] * 5 + [True] * 2
    assert orjson.loads(written[0].value() or b"") == {
        "v": 1, "subject": "u:a", "list_id": "L1", "items": ["1"], "candidates": [0, 1, 2],
        "candidate_scores": [0.5, 0.5, 0.5],
    }  # fmt: skip


@asynchronous
async def test_the_sink_copies_lists_to_the_topic_and_an_erasure_reaches_files_and_topic(
    broker: KafkaBroker, shared_valkey: Valkey, tmp_path: Path
) -> None:
    topic = made(broker, **{"cleanup.policy": "compact"})
    ids = ListIds()
    before, other, after = ids.new(NOW_MS), ids.new(NOW_MS), ids.new(NOW_MS + 2)
    settings = load_kafka(kafka_brokers=broker.brokers, kafka_exposures_topic=topic)
    async with world(shared_valkey, tmp_path) as here, exposure_topic(settings) as exposures:
        await here.append(shown(before), shown(other, subject="u:2"), shown(after, NOW_MS + 2))
        await here.sink(once=True, topic=exposures).run(asyncio.Event())
        assert await here.pending() == 0
        await here.append(erased_entry("u:1", NOW_MS + 1))
        await here.sink(once=True, topic=exposures).run(asyncio.Event())
        await here.house(topic=exposures).keep(erase=True)
        assert here.lists() == sorted([other, after])
    written = [((one.key() or b"").decode(), one.value()) for one in messages_of(broker.brokers, topic, 4)]
    assert [key for key, _ in written] == [f"u:1:{before}", f"u:2:{other}", f"u:1:{after}", f"u:1:{before}"]
    assert [value is None for _, value in written] == [False, False, False, True]


@asynchronous
async def test_what_is_not_confirmed_is_said_and_can_be_sent_again(broker: KafkaBroker) -> None:
    from service.intake.producer import KafkaSender

    topic = made(broker)
    nobody = KafkaSender(producer_options(load_kafka(kafka_brokers="127.0.0.1:1", kafka_delivery_timeout_ms=100)))
    try:
        with pytest.raises(DeliveryFailed, match="1 of 1"):
            await nobody.send([Outgoing(topic, b"k", b"v")])
        with pytest.raises(DeliveryFailed) as refused:
            await nobody.send([Outgoing(topic, b"k", bytes(20 * 2**20))])
        assert refused.value.too_large
    finally:
        await nobody.close()
    somebody = KafkaSender(producer_options(load_kafka(kafka_brokers=broker.brokers)))
    try:
        await somebody.send([Outgoing(topic, b"k", b"v", (("h", b"1"),))])
    finally:
        await somebody.close()
    [message] = messages_of(broker.brokers, topic, 1)
    assert (message.key(), message.value(), message.headers()) == (b"k", b"v", [("h", b"1")])


def test_an_option_that_librdkafka_does_not_know_is_refused_by_its_name() -> None:
    from service.intake.producer import KafkaSender

    settings = load_kafka(kafka_brokers="127.0.0.1:1", kafka_options="sasl.pasword=secret")
    with pytest.raises(SettingsError, match=r"KAFKA_OPTIONS.*sasl\.pasword") as refused:
        KafkaSender(producer_options(settings))
    assert "secret" not in str(refused.value)
