"""Exposures to a topic: one message for each list, keyed `<subject>:<list_id>`, deleted by tombstones.

The topic should be compacted (`cleanup.policy=compact`), so that a tombstone deletes the list within the topic's
`max.compaction.lag.ms`, and a list that is written again, after a crash, replaces itself.

A value is the exposure as JSON, as it stands in the stream (format 1), with `v` for the format. Lists that were drawn
have `candidates` (indices in the catalogue) and `candidate_scores` beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import orjson

from service.exposures.exposure import FORMAT
from service.intake.kafka_options import consumer_options, producer_options
from service.intake.records import Outgoing, Sender
from service.settings.kafka_settings import KafkaSettings

# Messages that are made, and wait for their confirmation, at once.
_AT_ONCE = 500

FindKeys = Callable[[Mapping[str, int]], Iterable[str]]


class ExposureTopic:
    """Writes exposures to the topic, and erases them there. For one caller at a time; repeating a call is safe."""

    def __init__(self, sender: Sender, topic: str, find_keys: FindKeys) -> None:
        """Connects the parts.

        Args:
            sender: Writes with confirmation.
            topic: The topic of the exposures.
            find_keys: Returns the keys of what the subjects were shown until their times (`topic_keys.TopicKeys`).
        """
        self._sender, self._topic, self._find_keys = sender, topic, find_keys

    async def forward(self, exposures: Iterable[Mapping[str, Any]]) -> int:
        """Writes lists in this order; returns how many, once the brokers have confirmed all of them.

        Args:
            exposures: Decoded exposures, each with `subject` as it is stored (`u:…`, `s:…`) and `list_id`; arrays of
                numpy are fine.

        Raises:
            DeliveryFailed: At least one was not confirmed. Forward the same ones again.
        """
        return await self._send(Outgoing(self._topic, key_of(one).encode(), _packed(one)) for one in exposures)

    async def erase(self, erased: Mapping[str, int]) -> int:
        """Writes a tombstone for every list of erased subjects that the topic holds; returns how many.

        Reads the keys of the whole topic once, however many subjects there are: the stream that says whom to erase no
        longer holds their lists. Call it for many at a time.

        Args:
            erased: Subject → until when its lists are erased, in epoch milliseconds.

        Raises:
            DeliveryFailed: The topic could not be read, or a tombstone was not confirmed. Erase the same ones again.
        """
        keys = await asyncio.to_thread(lambda: list(self._find_keys(erased))) if erased else []
        return await self._send(Outgoing(self._topic, key.encode(), None) for key in keys)

    async def _send(self, messages: Iterable[Outgoing]) -> int:
        rest, sent = iter(messages), 0
        while part := list(islice(rest, _AT_ONCE)):
            await self._sender.send(part)
            sent += len(part)
        return sent


@asynccontextmanager
async def exposure_topic(settings: KafkaSettings) -> AsyncIterator[ExposureTopic]:
    """Opens the topic of the settings until the body ends.

    Args:
        settings: With a topic for exposures, as `load_exposures_topic` returns them.

    Raises:
        SettingsError: librdkafka refuses an option.
    """
    # Here, so that this module can be imported without the extra `kafka`.
    from service.intake.producer import KafkaSender
    from service.intake.topic_keys import TopicKeys

    topic = settings.kafka_exposures_topic
    sender = KafkaSender(producer_options(settings))
    try:
        yield ExposureTopic(sender, topic, TopicKeys(consumer_options(settings), topic))
    finally:
        await sender.close()


def key_of(exposure: Mapping[str, Any]) -> str:
    """Returns the key of a list's message. Lists have ids without a colon, so the subject is what precedes the last."""
    return f"{exposure['subject']}:{exposure['list_id']}"


def _packed(exposure: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"v": int(FORMAT), **exposure}, option=orjson.OPT_SERIALIZE_NUMPY)
