"""Settings → options of librdkafka, for the consumer and for producers.

What guards a promise is fixed: nobody may switch on commits of messages that are not stored, or give up the order of an
exposure and its tombstone. Everything else may be overridden by `GPT4REC_KAFKA_OPTIONS`. The names are those of
librdkafka's CONFIGURATION.md; librdkafka itself refuses unknown ones (`refused`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.common.errors import SettingsError
from service.settings.environment import PREFIX
from service.settings.kafka_settings import KafkaSettings

Options = dict[str, str | int | float | bool]

# Options of a consumer. A producer would ignore them with a warning.
_OF_CONSUMERS = (
    "auto.offset.", "check.crcs", "fetch.", "group.", "heartbeat.", "isolation.", "max.poll.", "partition.assignment.",
    "queued.", "session.",
)  # fmt: skip
_OF_PRODUCERS = (
    "batch.", "compression.", "linger.", "partitioner", "queue.buffering.", "request.required.", "acks", "sticky.",
)  # fmt: skip
# How long librdkafka may wait before it sends a first request again; the default gives up after two seconds.
_RECONNECT_MOST_MS = 5000
_METADATA_MS = 30_000


def consumer_options(settings: KafkaSettings) -> Options:
    """Returns the options of the consumer of events.

    Raises:
        SettingsError: An option is malformed, or set by another setting.
    """
    fixed: Options = {
        "bootstrap.servers": settings.kafka_brokers,
        "group.id": settings.kafka_group,
        "auto.offset.reset": settings.kafka_start,
        # librdkafka commits what is marked as stored: now and then, when partitions leave, and at the end.
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
        "auto.commit.interval.ms": settings.kafka_commit_interval_ms,
        "queued.max.messages.kbytes": 2 * settings.kafka_batch_kib,
        "enable.partition.eof": False,
    }
    usual: Options = {
        "client.id": "gpt4rec-ingest",
        "partition.assignment.strategy": "cooperative-sticky",
        "reconnect.backoff.max.ms": _RECONNECT_MOST_MS,
        "topic.metadata.refresh.interval.ms": _METADATA_MS,
    }
    return _joined(settings, usual, fixed, skip=_OF_PRODUCERS)


def producer_options(settings: KafkaSettings) -> Options:
    """Returns the options of a producer whose every message is confirmed by all replicas, in order.

    Raises:
        SettingsError: As of `consumer_options`.
    """
    fixed: Options = {
        "bootstrap.servers": settings.kafka_brokers,
        "acks": "all",
        # In order, also when a request is repeated: a tombstone must not overtake what it erases. Without idempotence,
        # so that a broker that lost the producer's state does not end the producer.
        "max.in.flight.requests.per.connection": 1,
        "message.timeout.ms": settings.kafka_delivery_timeout_ms,
    }
    usual: Options = {
        "client.id": "gpt4rec-ingest",
        "linger.ms": 5,
        "queue.buffering.max.kbytes": 4 * max(settings.kafka_batch_kib, 1024),
        "message.max.bytes": 16 * 2**20,
        "reconnect.backoff.max.ms": _RECONNECT_MOST_MS,
    }
    return _joined(settings, usual, fixed, skip=_OF_CONSUMERS)


def client_log() -> logging.Logger:
    """Returns the logger of librdkafka, without the failures that it also reports to the callback for errors."""
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(lambda record: not record.getMessage().startswith("FAIL"))
    return logger


def refused(error: Exception) -> SettingsError:
    """Returns what to say when librdkafka refuses the options; its message names the option, never its value."""
    said = getattr(error.args[0], "str", lambda: str(error))() if error.args else str(error)
    return SettingsError(f"{PREFIX}KAFKA_OPTIONS: {said}")


def _joined(settings: KafkaSettings, usual: Options, fixed: Options, skip: tuple[str, ...]) -> Options:
    given = {
        **_parsed(settings.kafka_options, "KAFKA_OPTIONS"),
        **_parsed(settings.kafka_secret_options.get_secret_value(), "KAFKA_SECRET_OPTIONS"),
    }
    _check(given)
    chosen = {name: value for name, value in given.items() if not name.startswith(skip)}
    return {**usual, **chosen, **fixed}


_FIXED = {
    "bootstrap.servers": "KAFKA_BROKERS",
    "metadata.broker.list": "KAFKA_BROKERS",
    "group.id": "KAFKA_GROUP",
    "auto.offset.reset": "KAFKA_START",
    "auto.commit.interval.ms": "KAFKA_COMMIT_INTERVAL_MS",
    "queued.max.messages.kbytes": "KAFKA_BATCH_KIB",
    "message.timeout.ms": "KAFKA_DELIVERY_TIMEOUT_MS",
    "delivery.timeout.ms": "KAFKA_DELIVERY_TIMEOUT_MS",
    "enable.auto.commit": None,
    "auto.commit.enable": None,
    "enable.auto.offset.store": None,
    "enable.partition.eof": None,
    "acks": None,
    "request.required.acks": None,
    "max.in.flight": None,
    "max.in.flight.requests.per.connection": None,
    "enable.idempotence": None,
    "transactional.id": None,
}


def _check(given: Mapping[str, str]) -> None:
    for name in given:
        if name in _FIXED:
            setting = _FIXED[name]
            instead = f"use {PREFIX}{setting}" if setting else "`ingest` relies on its own value"
            raise SettingsError(f"{PREFIX}KAFKA_OPTIONS: {name} cannot be set here; {instead}")


def _parsed(text: str, setting: str) -> dict[str, str]:
    """Returns the options of a text: one a line, or several on one line between commas."""
    found: dict[str, str] = {}
    for part in text.splitlines() if "\n" in text.strip() else text.split(","):
        if not (stripped := part.strip()):
            continue
        name, sign, value = stripped.partition("=")
        if not sign or not name.strip():
            raise SettingsError(f"{PREFIX}{setting}: write each option as name=value")
        found[name.strip()] = value.strip()
    return found
