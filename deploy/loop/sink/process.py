"""The process of `gpt4rec loop sink`: the parts, the loop, the side door, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from deploy.loop.sink.batch_writer import BatchWriter
from deploy.loop.sink.housekeeping import Housekeeping
from deploy.loop.sink.lease import Lease, own_name
from deploy.loop.sink.live_outcomes import LiveOutcomes
from deploy.loop.sink.recent_erasures import RecentErasures
from deploy.loop.sink.sink import Bounds, Sink
from model.online.log_folder import LogFolder
from service.access import credentials, secret_files
from service.api.listeners import bind
from service.common import logs
from service.common.errors import SettingsError
from service.intake.exposures import ExposureTopic, exposure_topic
from service.intake.side_door import open_side_door
from service.metrics.service_metrics import Metrics
from service.metrics.sink_metrics import SinkMetrics
from service.process.background import spawn
from service.process.process_end import stop_signals
from service.settings.kafka_settings import KafkaSettings
from service.settings.service_settings import Settings
from service.settings.sink_settings import SinkSettings
from service.store.erasure_list import ErasureList
from service.store.outcome_fields import OutcomeFields
from service.store.streams.stream_group import StreamGroup

log = logs.get(__name__)

Announce = Callable[[int], None]

# A loop that has not turned for so long hangs: a turn is a call to Redis, a pause, or a batch.
_SILENT_MOST_S = 120.0
# Time-out of a call: pages of entries are large, and nobody waits for them.
_REDIS_S = 10.0
_STOP_SPARE_S = 15.0


def sink(
    settings: Settings,
    own: SinkSettings,
    kafka: KafkaSettings | None,
    announce: Announce,
    *,
    once: bool = False,
    erase_now: bool = False,
) -> None:
    """Writes the streams to the log until a signal to stop.

    Args:
        settings: Of the service.
        own: Of the sink.
        kafka: Of the topic that lists are copied to; None if there is none.
        announce: Called with the port of /metrics.
        once: Whether to stop when everything has been read and written.
        erase_now: Whether to rewrite the files without erased subjects as soon as everything has been written.

    Raises:
        StartupError: A setting or the URL of Redis cannot be used, or the port is taken.
    """
    if settings.redis_url.get_secret_value() == "embedded":
        raise SettingsError(
            "GPT4REC_REDIS_URL: `loop sink` reads the Redis of the service, and an embedded one would be this "
            "process's own; name that of the service (an embedded one: unix://<data folder>/valkey.sock)"
        )
    uvloop.run(_sink(settings, own, kafka, announce, once=once, erase_now=erase_now))


async def _sink(
    settings: Settings,
    own: SinkSettings,
    kafka: KafkaSettings | None,
    announce: Announce,
    *,
    once: bool,
    erase_now: bool,
) -> None:
    stop = stop_signals(2.0 * settings.drain_timeout_s + _STOP_SPARE_S)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = SinkMetrics(registry)
    folder = LogFolder(own.sink_log)
    async with AsyncExitStack() as stack:
        access = credentials.access(settings)
        if followed := credentials.files(access, settings.secret_trust_s):
            spawn(stack, lambda: secret_files.follow(followed, Metrics()))
        sock = stack.enter_context(bind(own.sink_metrics_host, own.sink_metrics_port))
        in_lane = _lane(stack)
        group = StreamGroup(
            settings.redis_url.get_secret_value(),
            prefix=settings.redis_prefix, timeout_s=_REDIS_S, owner=own_name(),
        )  # fmt: skip
        stack.push_async_callback(group.close)
        topic: ExposureTopic | None = None
        if kafka is not None:
            topic = await stack.enter_async_context(exposure_topic(kafka))
        lease = Lease(group, own.sink_lease_s)
        spawn(stack, lease.keep)
        erased = RecentErasures()
        bounds = Bounds(
            entries=own.sink_batch_max,
            bytes=own.sink_batch_kib * 1024,
            seconds=own.sink_batch_s,
            stop_s=settings.drain_timeout_s,
            once=once,
        )
        writer = BatchWriter(folder, metrics, erased)
        shared = OutcomeFields(group.link, prefix=settings.redis_prefix, timeout_s=_REDIS_S)
        live = LiveOutcomes(
            folder, shared, metrics,
            open_most=own.sink_open_lists, open_ms=int(own.sink_open_hours * 3_600_000),
        )  # fmt: skip
        loop = Sink(group, lease, writer, metrics, bounds, in_lane=in_lane, topic=topic, live=None if once else live)
        if not once:
            spawn(stack, live.run)
        house = Housekeeping(
            folder, metrics, erased, in_lane=in_lane, may_act=lambda: lease.held, topic=topic,
            listed=ErasureList(group.link, prefix=settings.redis_prefix, timeout_s=_REDIS_S),
            retention_days=own.sink_retention_days,
        )  # fmt: skip

        def checks() -> Mapping[str, bool]:
            alive = time.monotonic() - loop.turned_at < _SILENT_MOST_S
            return {"alive": alive, "storing": loop.failing_since is None, "not_draining": not stop.is_set()}

        def status() -> Mapping[str, Any]:
            return {"log": own.sink_log, "reads": lease.held}

        await open_side_door(stack, sock, access, lambda: generate_latest(registry), checks, status)
        log.info("started", log=own.sink_log)
        announce(sock.getsockname()[1])
        await _work(stop, loop, house, erase_hours=own.sink_erase_hours, once=once, erase_now=erase_now)
        log.info("stopping")


async def _work(
    stop: asyncio.Event, loop: Sink, house: Housekeeping, *, erase_hours: float, once: bool, erase_now: bool
) -> None:
    """Runs the loop, and the house keeping beside it."""
    keeping = asyncio.create_task(house.run(loop.caught_up, erase_hours * 3600.0, erase_now=erase_now and not once))
    try:
        await loop.run(stop)
        if once and loop.caught_up.is_set() and not stop.is_set():
            await house.keep(erase=erase_now, waiting_s=erase_hours * 3600.0)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def _lane(stack: AsyncExitStack) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Returns what runs functions one after the other, in one thread: they change the log."""
    lane = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
    stack.callback(lane.shutdown)
    return lambda work: asyncio.get_running_loop().run_in_executor(lane, work)
