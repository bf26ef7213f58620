"""The consumer: a member of the group, on a thread of its own.

Every call of the client runs on one thread, and so do the callbacks of a rebalance, which the client runs inside
`poll` and `consume`. So no partition leaves while a batch is in hand. `poll` is called while the intake holds as well,
because a member that does not call it is thrown out of its group.

A batch takes few calls: after each one the thread needs the interpreter's lock, which the event loop and the encoder
may keep for 5 ms at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from service.common import logs
from service.common.errors import ServiceError
from service.intake.intake_metrics import IntakeMetrics
from service.intake.kafka_options import Options, client_log, refused
from service.intake.records import Record

log = logs.get(__name__)

T = TypeVar("T")

# Most messages of one call. What a batch has no room for waits here, so this bounds how many.
_AT_ONCE = 64
# How long one call waits for a first message; a stop is noticed after that.
_POLL_S = 0.2
_LAG_EVERY_S = 1.0
# While nothing is read, the end of each partition must be asked for.
_ASKED_LAG_EVERY_S = 10.0
_ASK_TIMEOUT_S = 1.0
_SILENT_S = 30.0


class KafkaGone(ServiceError):  # noqa: N818 - the name says what happened
    """The client cannot go on; the process must start again."""

    reason = "kafka_gone"


class KafkaSource:
    """A `records.Source` over a consumer group.

    Attributes:
        polled_at: Monotonic time of the last call that reached the client; liveness.
        partitions: What is assigned: partition → offset of the next message to store; below 0 until it is known.
    """

    def __init__(
        self,
        options: Options,
        topic: str,
        metrics: IntakeMetrics,
        *,
        batch_max: int,
        batch_bytes: int,
        batch_wait_s: float,
    ) -> None:
        """Creates the client; it connects by itself, and `start` joins the group.

        Args:
            options: Of librdkafka.
            topic: The topic of the events.
            metrics: Of the intake.
            batch_max: Most messages of one `take`.
            batch_bytes: A `take` ends with the message that exceeds this.
            batch_wait_s: How long it waits for more, from its first message on.

        Raises:
            SettingsError: librdkafka refuses an option.
        """
        self._topic, self._metrics = topic, metrics
        self._max, self._bytes, self._wait_s = batch_max, batch_bytes, batch_wait_s
        self.partitions: dict[int, int] = {}
        self._claims: dict[int, int] = {}
        self._claim = 0
        self._held = False
        self._unpaused: list[int] = []
        # What came in spite of a pause: partition → first such offset.
        self._early: dict[int, int] = {}
        # What came with the batch before, but exceeded its bytes.
        self._ahead: deque[Record] = deque()
        # What is stored, and not marked yet: partition → offset of the next message.
        self._marks: dict[int, int] = {}
        self._lag_at = 0.0
        self._said: dict[str, float] = {}
        self.polled_at = time.monotonic()
        callbacks: dict[str, Any] = {
            "error_cb": self._error,
            "on_commit": self._committed,
            "logger": client_log(),
        }
        try:
            self._consumer = Consumer({**options, **callbacks})
        except (KafkaException, ValueError, TypeError) as error:
            raise refused(error) from None
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="kafka")

    def start(self) -> None:
        """Joins the group."""
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    async def take(self) -> list[Record]:
        """Returns the next messages, at most as many and as large as the limits say."""
        return await self._on_lane(self._gather)

    async def hold(self, seconds: float) -> None:
        """Polls for this time without taking messages."""
        await self._on_lane(lambda: self._wait(seconds))

    async def go_on(self) -> None:
        """Reads on."""
        await self._on_lane(self._resume)

    def owned(self, records: Sequence[Record]) -> list[Record]:
        """Returns the records whose partitions are still assigned, and were not away in between."""
        return [record for record in records if self._claims.get(record.partition) == record.claim]

    def stored(self, records: Sequence[Record]) -> None:
        """Notes that the records are done. The next call marks them before it does anything else."""
        for record in self.owned(records):
            following = max(self._marks.get(record.partition, 0), record.offset + 1)
            self._marks[record.partition] = self.partitions[record.partition] = following

    async def close(self) -> None:
        """Commits what is stored, and leaves the group."""
        await self._on_lane(self._close)
        self._lane.shutdown()

    def _close(self) -> None:
        self._mark()
        self._consumer.close()

    async def _on_lane(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lane, work)

    def _gather(self) -> list[Record]:
        self._mark()
        self._measure_lag()
        ahead = self._ahead = deque(self.owned(self._ahead))
        if not ahead:
            ahead.extend(self._poll(_POLL_S))
        taken: list[Record] = []
        size, until, more = 0, time.monotonic() + self._wait_s, True
        while ahead and self._room(len(taken), size):
            taken.append(ahead.popleft())
            size += _size(taken[-1])
            if more and not ahead and (room := self._room(len(taken), size)):
                ahead.extend(self._consume(room, max(0.0, until - time.monotonic())))
                more = len(ahead) == room  # else the time is over
        # A rebalance may have run inside the last call: its commit did not cover these.
        return self.owned(taken)

    def _room(self, messages: int, size: int) -> int:
        """Returns how many messages to ask for: as many as fit into the batch, if they are as large as those so far."""
        if messages >= self._max or size >= self._bytes:
            return 0
        fitting = (self._bytes - size) * messages // max(1, size)
        return max(1, min(self._max - messages, fitting, _AT_ONCE))

    def _poll(self, seconds: float) -> list[Record]:
        """Waits for a message; returns at most one."""
        message = self._call(lambda: self._consumer.poll(seconds))
        return [] if message is None else self._good([message])

    def _consume(self, most: int, seconds: float) -> list[Record]:
        """Waits for so many messages; returns what came in this time."""
        return self._good(self._call(lambda: self._consumer.consume(most, seconds)))

    def _call(self, work: Callable[[], T]) -> T:
        try:
            found = work()
        except (KafkaException, RuntimeError) as broken:
            raise KafkaGone(f"the consumer broke: {broken}") from broken
        self.polled_at = time.monotonic()
        return found

    def _good(self, messages: Iterable[Message[bytes, bytes]]) -> list[Record]:
        """Returns the records of the messages that are no errors."""
        return [record for message in messages if (record := self._good_one(message)) is not None]

    def _good_one(self, message: Message[bytes, bytes]) -> Record | None:
        error = message.error()
        if error is not None:
            if error.fatal():
                raise KafkaGone(f"the consumer broke: {error.str()}")
            self._complain("topic_not_read", error)
            return None
        return self._record(message)

    def _record(self, message: Message[bytes, bytes]) -> Record:
        partition, offset = message.partition(), message.offset()
        assert partition is not None  # noqa: S101 - every message without an error has them
        assert offset is not None  # noqa: S101
        if self.partitions.get(partition) == OFFSET_INVALID:
            self.partitions[partition] = offset
        kind, time_ms = message.timestamp()
        return Record(
            topic=message.topic() or self._topic,
            partition=partition,
            offset=offset,
            key=message.key(),
            value=message.value(),
            time_ms=time_ms if kind else None,
            claim=self._claims.get(partition, 0),
        )

    def _wait(self, seconds: float) -> None:
        self._mark()
        if not self._held:
            self._held, self._unpaused = True, list(self.partitions)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._unpaused:
                self._consumer.pause(self._places(self._unpaused))
                self._unpaused = []
            # A partition that came during the poll may have delivered before it was paused. That is not kept, so the
            # partition is read again from there.
            for record in self._poll(min(left, _POLL_S)):
                self._early[record.partition] = min(record.offset, self._early.get(record.partition, record.offset))
        self._measure_lag(asked=True)

    def _resume(self) -> None:
        self._held, self._unpaused = False, []
        for partition, offset in self._early.items():
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
        self._early.clear()
        if self.partitions:
            self._consumer.resume(self._places(self.partitions))

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, one) for one in partitions]

    def _mark(self) -> None:
        """Marks what is stored, so that the next commit covers it."""
        marks, self._marks = self._marks, {}
        if marks:
            self._consumer.store_offsets(
                offsets=[TopicPartition(self._topic, one, offset) for one, offset in marks.items()]
            )

    # -- callbacks, on the lane inside `poll` and `consume`

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._claim += 1
            self._claims[one.partition] = self._claim
            self.partitions[one.partition] = OFFSET_INVALID
        self._metrics.partitions.labels("assigned").inc(len(partitions))
        log.info("partitions_assigned", partitions=sorted(one.partition for one in partitions))
        if self._held:  # the client assigns after this callback, and only what is assigned can be paused
            self._unpaused += [one.partition for one in partitions]

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions, "revoked")

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions, "lost")

    def _forget(self, partitions: list[TopicPartition], change: str) -> None:
        for one in partitions:
            self._claims.pop(one.partition, None)
            self.partitions.pop(one.partition, None)
            self._early.pop(one.partition, None)
        self._unpaused = [one for one in self._unpaused if one in self.partitions]
        self._metrics.partitions.labels(change).inc(len(partitions))
        log.info(f"partitions_{change}", partitions=sorted(one.partition for one in partitions))
        self._lag_at = 0.0

    def _committed(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        if error is not None and error.code() == KafkaError._NO_OFFSET:  # noqa: SLF001 - its public name
            return  # nothing was new
        self._metrics.commits.labels("failed" if error else "ok").inc()
        if error is not None:
            self._complain("offsets_not_committed", error)

    def _error(self, error: KafkaError) -> None:
        self._complain("kafka_unreachable", error)

    def _complain(self, event: str, error: KafkaError) -> None:
        """Logs an error once, and again if it is still there after a while."""
        code, now = f"{event} {error.name()}", time.monotonic()
        if now - self._said.get(code, -math.inf) > _SILENT_S:
            self._said[code] = now
            log.warning(event, code=error.name(), detail=error.str())

    def _measure_lag(self, *, asked: bool = False) -> None:
        """Shows how many messages of each partition are not stored yet.

        Args:
            asked: Asks the broker for the ends, because nothing is fetched that would tell.
        """
        now = time.monotonic()
        if now - self._lag_at < (_ASKED_LAG_EVERY_S if asked else _LAG_EVERY_S):
            return
        self._lag_at = now
        lags = {}
        for partition, following in self.partitions.items():
            place = TopicPartition(self._topic, partition)
            try:
                ends = self._consumer.get_watermark_offsets(place, timeout=_ASK_TIMEOUT_S, cached=not asked)
            except KafkaException:
                continue
            if ends is not None and ends[1] >= 0 and following >= 0:
                lags[partition] = max(0, ends[1] - following)
        self._metrics.show_lag(lags)


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
