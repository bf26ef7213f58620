"""The consumer on a scripted client: limits of a batch, pauses, partitions that come and go, what is marked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from loadtests.harness.kafka_broker import installed
from service.intake.intake_metrics import IntakeMetrics
from service.intake.records import Record
from tests.support.aio import asynchronous

pytestmark = pytest.mark.skipif(not installed(), reason="confluent-kafka is not installed")


class Message:
    def __init__(self, partition: int, offset: int, value: bytes = b"x") -> None:
        self._at, self._value = (partition, offset), value

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self._at[0]

    def offset(self) -> int:
        return self._at[1]

    def timestamp(self) -> tuple[int, int]:
        return 0, 0

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value


class Client:
    """Does what the script says: deliver messages, or call back as a rebalance does."""

    def __init__(self) -> None:
        self.script: deque[Message | Callable[[Client], Any]] = deque()
        self.calls: list[tuple[str, Any]] = []
        self.asked: list[int] = []
        self.assigned: Any = None
        self.revoked: Any = None
        self.lost: Any = None

    def __call__(self, _: dict[str, Any]) -> Client:
        return self

    def subscribe(self, _: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.assigned, self.revoked, self.lost = on_assign, on_revoke, on_lost

    def poll(self, _: float) -> Message | None:
        step = self.script.popleft() if self.script else None
        if callable(step):
            step(self)
            return None
        return step

    def consume(self, most: int, _: float) -> list[Message]:
        self.asked.append(most)
        found: list[Message] = []
        while self.script and len(found) < most:
            step = self.script.popleft()
            if callable(step):
                step(self)
            else:
                found.append(step)
        return found

    def pause(self, places: list[Any]) -> None:
        self.calls.append(("pause", [one.partition for one in places]))

    def resume(self, places: list[Any]) -> None:
        self.calls.append(("resume", sorted(one.partition for one in places)))

    def seek(self, place: Any) -> None:
        self.calls.append(("seek", (place.partition, place.offset)))

    def store_offsets(self, offsets: list[Any]) -> None:
        self.calls.append(("store", sorted((one.partition, one.offset) for one in offsets)))

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, 100

    def close(self) -> None:
        self.calls.append(("close", None))


def gives(*partitions: int) -> Callable[[Client], Any]:
    from confluent_kafka import TopicPartition

    return lambda client: client.assigned(client, [TopicPartition("t", one) for one in partitions])


def takes(*partitions: int) -> Callable[[Client], Any]:
    from confluent_kafka import TopicPartition

    return lambda client: client.revoked(client, [TopicPartition("t", one) for one in partitions])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    from service.intake import consumer

    scripted = Client()
    monkeypatch.setattr(consumer, "Consumer", scripted)
    return scripted


def source(**limits: Any) -> Any:
    from service.intake.consumer import KafkaSource

    given = {"batch_max": 10, "batch_bytes": 1000, "batch_wait_s": 0.01, **limits}
    opened = KafkaSource({}, "t", IntakeMetrics(CollectorRegistry()), **given)
    opened.start()
    return opened


def places(records: list[Record]) -> list[tuple[int, int]]:
    return [(one.partition, one.offset) for one in records]


@asynchronous
async def test_a_batch_ends_at_its_count_and_at_its_bytes(client: Client) -> None:
    reading = source(batch_max=3, batch_bytes=10)
    client.script.extend([gives(0), *(Message(0, n) for n in range(5)), Message(0, 5, bytes(10)), Message(0, 6)])
    assert await reading.take() == []  # the rebalance alone
    assert places(await reading.take()) == [(0, 0), (0, 1), (0, 2)]
    assert places(await reading.take()) == [(0, 3), (0, 4), (0, 5)]
    client.script.extendleft([Message(0, 8, bytes(10))])
    assert places(await reading.take()) == [(0, 8)]
    await reading.close()


@asynchronous
async def test_a_batch_takes_two_calls_and_what_exceeds_its_bytes_comes_with_the_next(client: Client) -> None:
    reading = source(batch_max=100, batch_bytes=10)
    client.script.extend([gives(0, 1), Message(0, 0, b"xx"), Message(0, 1, bytes(9)), Message(0, 2), Message(1, 0)])
    await reading.take()
    assert places(await reading.take()) == [(0, 0), (0, 1)]
    assert client.asked == [4]  # as many as there is room for, if all are as large as the first
    assert places(await reading.take()) == [(0, 2), (1, 0)]
    await reading.close()


@asynchronous
async def test_what_came_with_an_earlier_batch_is_dropped_when_its_partition_has_left(client: Client) -> None:
    reading = source(batch_bytes=10)
    client.script.extend([gives(0, 1), Message(0, 0, b"x"), Message(0, 1, bytes(9)), Message(0, 2), Message(1, 0)])
    await reading.take()
    assert places(await reading.take()) == [(0, 0), (0, 1)]
    takes(0)(client)
    assert places(await reading.take()) == [(1, 0)]
    await reading.close()


@asynchronous
async def test_only_messages_of_the_present_assignment_are_marked_with_the_offset_after_the_last(
    client: Client,
) -> None:
    reading = source()
    client.script.extend([gives(0, 1), Message(0, 7), Message(1, 3), Message(0, 8)])
    await reading.take()
    taken = await reading.take()
    assert reading.partitions == {0: 7, 1: 3}
    client.script.append(takes(1))
    await reading.take()
    assert places(reading.owned(taken)) == [(0, 7), (0, 8)]
    reading.stored(taken)
    client.script.append(gives(1))
    await reading.take()
    assert client.calls == [("store", [(0, 9)])]
    reading.stored(taken)  # of the partition that left and came back nothing is marked
    await reading.close()
    assert client.calls == [*[("store", [(0, 9)])] * 2, ("close", None)]


@asynchronous
async def test_what_is_stored_is_marked_before_a_partition_can_leave(client: Client) -> None:
    reading = source()
    client.script.extend([gives(0), Message(0, 7)])
    await reading.take()
    reading.stored(await reading.take())

    def leaves(client: Client) -> None:
        client.calls.append(("leaves", 0))
        takes(0)(client)

    client.script.append(leaves)
    await reading.take()
    assert client.calls == [("store", [(0, 8)]), ("leaves", 0)]
    await reading.close()


@asynchronous
async def test_a_hold_pauses_what_comes_later_too_and_loses_nothing_that_came_in_between(client: Client) -> None:
    reading = source()
    client.script.extend([gives(0), Message(0, 1)])
    await reading.take()
    await reading.take()
    # A partition comes while the intake holds, and delivers before it can be paused.
    client.script.extend([gives(2), Message(2, 40), Message(2, 41)])
    await reading.hold(0.05)
    await reading.hold(0.01)
    assert client.calls == [("pause", [0]), ("pause", [2])]
    await reading.go_on()
    assert client.calls[2:] == [("seek", (2, 40)), ("resume", [0, 2])]
    await reading.hold(0.01)
    assert client.calls[4:] == [("pause", [0, 2])]
    await reading.close()
