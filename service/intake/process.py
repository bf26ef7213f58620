"""The process of `gpt4rec ingest kafka`: the parts of a space, as `serve` opens them, behind a consumer, not HTTP.

The process has an engine of its own: behind each stored event it encodes the history and stores the state, as a replica
of the service does after `POST /events`. It follows the same model, erasures and settings as the replicas.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import uvloop

from service.access import credentials, secret_files
from service.api.listeners import bind
from service.api.runtime import SpaceRuntime
from service.assembly.process import RedisServer
from service.assembly.space import open_space
from service.common import logs
from service.common.errors import SettingsError
from service.intake.consumer import KafkaSource
from service.intake.intake import Intake
from service.intake.intake_metrics import IntakeMetrics
from service.intake.kafka_options import consumer_options, producer_options
from service.intake.producer import KafkaSender
from service.intake.side_door import open_side_door
from service.metrics.service_metrics import Metrics
from service.process import output
from service.process.background import spawn
from service.process.process_end import stop_signals
from service.process.settled_heap import settle_heap
from service.settings.kafka_settings import KafkaSettings
from service.settings.service_settings import Settings
from service.settings.space import Space

log = logs.get(__name__)

Announce = Callable[[int], None]

# A client that was not called for so long hangs: a call takes a fraction of a second, a write to the store seconds.
_SILENT_MOST_S = 60.0
# What an orderly stop may take beside the settings: the last commit, leaving the group.
_STOP_SPARE_S = 15.0


def ingest(settings: Settings, kafka: KafkaSettings, announce: Announce) -> None:
    """Reads the topic into the store until a signal to stop.

    Args:
        settings: Of the service.
        kafka: Of Kafka.
        announce: Called with the port of /metrics once the group is joined.

    Raises:
        StartupError: A setting, the artefact or Redis cannot be used, or the port is taken.
        KafkaGone: The client broke; start the process again.
    """
    if settings.redis_url.get_secret_value() == "embedded":
        raise SettingsError(
            "GPT4REC_REDIS_URL: `ingest` writes into the Redis of the service, and an embedded one would be this "
            "process's own; name that of the service (an embedded one: unix://<data folder>/valkey.sock)"
        )
    if settings.role == "encode":
        raise SettingsError(
            "GPT4REC_ROLE: `ingest` stores events; with the role answer it hands them over to be encoded, and with all "
            "it encodes them itself"
        )
    uvloop.run(_ingest(settings, kafka, announce))


async def _ingest(settings: Settings, kafka: KafkaSettings, announce: Announce) -> None:
    stop = stop_signals(2.0 * settings.drain_timeout_s + _STOP_SPARE_S)
    metrics = Metrics()
    intake_metrics = IntakeMetrics(metrics.registry)
    async with AsyncExitStack() as stack:
        access = credentials.access(settings)
        if followed := credentials.files(access, settings.secret_trust_s):
            spawn(stack, lambda: secret_files.follow(followed, metrics))
        # The cheapest checks first: bad options and a taken port fail before a model is loaded.
        sender = KafkaSender(producer_options(kafka))
        source = _source(kafka, intake_metrics)
        sock = stack.enter_context(bind(kafka.kafka_metrics_host, kafka.kafka_metrics_port))
        space = await open_space(stack, metrics, Space.default(settings), RedisServer(stack, settings).url)
        stack.push_async_callback(sender.close)
        intake = _intake(settings, kafka, source, sender, space, intake_metrics)
        shown = _Shown(kafka, metrics, source, intake, space, stop)
        await open_side_door(stack, sock, access, shown.metrics, shown.checks, shown.status)
        stack.push_async_callback(source.close)  # before the store is closed: commits, and leaves the group
        settle_heap()
        source.start()
        log.info("started", topic=kafka.kafka_topic, group=kafka.kafka_group, model_version=space.model.version)
        announce(sock.getsockname()[1])
        await intake.run(stop)
        log.info("stopping")


def _intake(
    settings: Settings,
    kafka: KafkaSettings,
    source: KafkaSource,
    sender: KafkaSender,
    space: SpaceRuntime,
    metrics: IntakeMetrics,
) -> Intake:
    return Intake(
        source,
        space.ingest,
        sender,
        metrics,
        dead_letter_topic=kafka.dead_letter_topic,
        latest_ms=lambda: int((time.time() + settings.future_tolerance_s) * 1000.0),
        bytes_max=settings.max_body_bytes,
        stop_patience_s=settings.drain_timeout_s,
        recording=lambda: space.recorder.events_waiting,
        recording_max=settings.exposures_queue_max,
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the side door shows."""

    kafka: KafkaSettings
    registered: Metrics
    source: KafkaSource
    intake: Intake
    space: SpaceRuntime
    stop: asyncio.Event

    def metrics(self) -> bytes:
        m = self.registered
        m.count_up_to(m.log_lines_dropped, output.dropped())
        m.recording.waiting.labels("events").set(self.space.recorder.events_waiting)
        return m.render()

    def checks(self) -> Mapping[str, bool]:
        return {
            "alive": time.monotonic() - self.source.polled_at < _SILENT_MOST_S,
            "storing": self.intake.holding_since is None,
            "not_draining": not self.stop.is_set(),
        }

    def status(self) -> Mapping[str, Any]:
        partitions = sorted(self.source.partitions)
        return {"topic": self.kafka.kafka_topic, "group": self.kafka.kafka_group, "partitions": partitions}


def _source(kafka: KafkaSettings, metrics: IntakeMetrics) -> KafkaSource:
    return KafkaSource(
        consumer_options(kafka),
        kafka.kafka_topic,
        metrics,
        batch_max=kafka.kafka_batch_max,
        batch_bytes=kafka.kafka_batch_kib * 1024,
        batch_wait_s=kafka.kafka_batch_wait_ms / 1000.0,
    )
