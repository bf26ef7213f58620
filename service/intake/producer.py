"""A producer whose `send` returns once every message is confirmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.intake.kafka_options import Options, client_log, refused
from service.intake.records import DeliveryFailed, Outgoing

# Quoted, because the class takes no parameters at run time.
Report = Callable[["KafkaError | None", "Message[bytes, bytes]"], None]

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_ROOM_S = 0.1
# Beyond the time-out of a delivery, the client reports by itself.
_SPARE_S = 5.0


class KafkaSender:
    """A `records.Sender`. What waits for a broker is bounded by the options of the client."""

    def __init__(self, options: Options) -> None:
        """Creates the client; it connects by itself.

        Args:
            options: Of librdkafka, with `message.timeout.ms`.

        Raises:
            SettingsError: librdkafka refuses an option.
        """
        try:
            self._producer = Producer({**options, "logger": client_log()})
        except (KafkaException, ValueError, TypeError) as error:
            raise refused(error) from None
        self._patience_s = float(options["message.timeout.ms"]) / 1000.0 + _SPARE_S
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="kafka-writer")

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Writes messages in this order; returns when all replicas have confirmed all of them.

        Raises:
            DeliveryFailed: At least one was not confirmed. Any of them may be written; repeating is safe.
        """
        await asyncio.get_running_loop().run_in_executor(self._lane, lambda: self._send(messages))

    async def close(self) -> None:
        """Disconnects. Nothing waits: every `send` has returned."""
        await asyncio.get_running_loop().run_in_executor(self._lane, self._producer.close)
        self._lane.shutdown()

    def _send(self, messages: Sequence[Outgoing]) -> None:
        errors: list[KafkaError] = []
        reported = 0

        def report(error: KafkaError | None, _: Message[bytes, bytes]) -> None:
            nonlocal reported
            reported += 1
            if error is not None:
                errors.append(error)

        until = time.monotonic() + self._patience_s
        for message in messages:
            if errors:
                break  # later ones must not come before a repeated one
            self._produce(message, report, until)
        self._producer.flush(max(0.0, until - time.monotonic()))
        if errors:
            raise DeliveryFailed(
                f"{len(errors)} of {len(messages)} messages were not confirmed: {errors[0].str()}",
                too_large=any(error.code() in _TOO_LARGE for error in errors),
            )
        if reported < len(messages):
            self._producer.purge()
            self._producer.flush(_ROOM_S)
            raise DeliveryFailed(f"{len(messages) - reported} of {len(messages)} messages were not confirmed in time")

    def _produce(self, message: Outgoing, report: Report, until: float) -> None:
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                    on_delivery=report,
                )
                self._producer.poll(0)
            except BufferError:  # it is full; reports make room
                if time.monotonic() >= until:
                    raise DeliveryFailed("the brokers take no messages") from None
                self._producer.poll(_ROOM_S)
            except KafkaException as error:
                kafka_error = error.args[0]
                raise DeliveryFailed(kafka_error.str(), too_large=kafka_error.code() in _TOO_LARGE) from error
            else:
                return
