"""Finds keys in a topic by reading it once from its beginning to its end, outside every consumer group."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from service.exposures.list_ids import time_of
from service.intake.kafka_options import Options, client_log, refused
from service.intake.records import DeliveryFailed

_POLL_S = 0.5
_METADATA_S = 10.0
# Without a message or the end of a partition for so long, the brokers are taken to be away.
_SILENT_S = 30.0


class TopicKeys:
    """The keys `<subject>:<id>` of a topic.

    Args:
        options: Of a consumer (`kafka_options.consumer_options`).
        topic: The topic.
        patience_s: How long the brokers may be silent.
    """

    def __init__(self, options: Options, topic: str, *, patience_s: float = _SILENT_S) -> None:
        own = {"group.id": "gpt4rec-keys", "enable.auto.commit": False, "enable.partition.eof": True}
        self._options = {**options, **own, "auto.offset.reset": "earliest"}
        self._topic, self._patience_s = topic, patience_s

    def __call__(self, erased: Mapping[str, int]) -> list[str]:
        """Returns the keys of what subjects were shown whose newest message has a value. Blocks while it reads.

        Args:
            erased: Subject → until when, in epoch milliseconds. Ids that do not tell their time count as older.

        Raises:
            DeliveryFailed: The topic cannot be read to its end.
            SettingsError: librdkafka refuses an option.
        """
        wanted = {subject.encode(): until_ms for subject, until_ms in erased.items()}
        try:
            consumer = Consumer({**self._options, "logger": client_log()})
        except (KafkaException, ValueError, TypeError) as error:
            raise refused(error) from None
        try:
            return self._read(consumer, wanted)
        except KafkaException as error:
            raise DeliveryFailed(f"{self._topic} cannot be read: {error}") from error
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, wanted: Mapping[bytes, int]) -> list[str]:
        found = consumer.list_topics(self._topic, timeout=_METADATA_S).topics[self._topic]
        if found.error is not None:
            raise DeliveryFailed(f"{self._topic} cannot be read: {found.error.str()}")
        unread = set(found.partitions)
        consumer.assign([TopicPartition(self._topic, one, OFFSET_BEGINNING) for one in unread])
        keys: dict[bytes, None] = {}
        heard_at = time.monotonic()
        while unread:
            message = consumer.poll(_POLL_S)
            if message is None:
                if time.monotonic() - heard_at > self._patience_s:
                    raise DeliveryFailed(f"{self._topic} cannot be read to its end: the brokers are silent")
                continue
            heard_at = time.monotonic()
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    raise DeliveryFailed(f"{self._topic} cannot be read: {error.str()}")
                unread.discard(message.partition())
                continue
            key = message.key() or b""
            subject, _, list_id = key.rpartition(b":")
            if subject not in wanted or _made(list_id) > wanted[subject]:
                continue
            if message.value() is None:
                keys.pop(key, None)  # erased before
            else:
                keys[key] = None
        return [key.decode() for key in keys]


def _made(list_id: bytes) -> int:
    try:
        return time_of(list_id.decode())
    except ValueError:
        return -1
