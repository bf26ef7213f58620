"""Opens what the process has once, and its spaces."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from service.access import credentials, secret_files
from service.access.keys import Access
from service.api.runtime import Runtime
from service.assembly.space import open_space
from service.common.background import spawn
from service.common.errors import StartupError
from service.common.metrics import Metrics, watch_loop_lag
from service.common.process_state import ProcessState
from service.common.settings import Settings
from service.common.space import Space
from service.engine.interface import EngineLike
from service.guard.guard import Guard
from service.ops.console import Console
from service.ops.recent_traffic import RecentTraffic
from service.ops.worker_peers import Peers
from service.store.embedded_valkey import EmbeddedValkey
from service.store.store import Store
from service.tracing import tracing

_EMBEDDED = "embedded"
# How long a shutdown waits for a collector to take the last spans.
_LAST_SPANS_S = 2.0


async def open_runtime(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    process_state: ProcessState,
    engine: EngineLike | None,
    store: Store | None,
) -> Runtime:
    """Opens the service: what the process has once, around the parts of its space.

    Args:
        stack: Closes the parts in reverse order, also after a failed start.
        settings: Of the service.
        metrics: Of the process.
        process_state: Of the process; the caller keeps it up to date.
        engine: The engine to serve; opened from the settings, and closed with the rest, if None.
        store: The store to use; opened from the settings, and closed with the rest, if None.

    Raises:
        StartupError: A setting, the policies file, the artefact or Redis cannot be used.
    """
    await _open_traces(stack, settings, metrics)
    access = _open_access(stack, settings, metrics)
    redis = RedisServer(stack, settings)
    space = await open_space(stack, metrics, Space.default(settings), redis.url, engine, store)
    recent, peers = _open_traffic(stack, settings, metrics, space.guard)
    console = Console(
        recent,
        peers,
        settings=settings,
        access=access,
        metrics=metrics,
        process=process_state,
        serving=space.serving,
        models=space.models,
        guard=space.guard,
        mode=space.mode,
        redis=space.redis,
        watch=space.watch,
    )
    return Runtime(
        settings=settings,
        access=access,
        metrics=metrics,
        process_state=process_state,
        space=space,
        console=console,
        peers=peers,
    )


async def _open_traces(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> None:
    """Switches traces on, if the settings say where to send them.

    Raises:
        StartupError: The extra `otel` is not installed.
    """
    if not settings.traces:
        return
    try:
        # Imported here: the SDK takes a while to load, and most processes do without it.
        from service.tracing import otel
    except ModuleNotFoundError as error:
        raise StartupError(f"GPT4REC_TRACES: {error.name} is missing; pip install 'gpt4rec[otel]'") from None
    endpoint = None if settings.traces == "environment" else settings.traces
    exporter = otel.CountedExporter(otel.otlp(endpoint), lambda outcome, n: metrics.spans.labels(outcome).inc(n))
    tracer = otel.OtelTracer(settings.traces_share, exporter)
    tracing.switch_on(tracer)
    stack.push_async_callback(asyncio.to_thread, tracer.close, _LAST_SPANS_S)
    stack.callback(tracing.switch_off, tracer)


class RedisServer:
    """The Redis of the process. An embedded server is started when it is first needed, and kept alive."""

    def __init__(self, stack: AsyncExitStack, settings: Settings) -> None:
        self._stack, self._folder = stack, settings.data_dir
        self._url = settings.redis_url.get_secret_value()

    async def url(self) -> str:
        """Returns the URL to connect to.

        Raises:
            StartupError: The embedded server does not start.
        """
        if self._url == _EMBEDDED:
            server = EmbeddedValkey(self._folder)
            self._url = await asyncio.to_thread(server.start)
            self._stack.push_async_callback(asyncio.to_thread, server.stop)
            spawn(self._stack, server.keep_alive)
        return self._url


def _open_access(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Access:
    """Returns who may call; follows the files of secrets."""
    access = credentials.access(settings)
    if followed := credentials.files(access, settings.secret_trust_s):
        spawn(stack, lambda: secret_files.follow(followed, metrics))
    return access


def _open_traffic(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, guard: Guard
) -> tuple[RecentTraffic, Peers]:
    """Returns recent traffic and the calls to the other workers; measures the lag of the event loop."""
    recent, peers = RecentTraffic(metrics), Peers()
    interval_s = settings.loop_lag_interval_ms / 1000.0
    spawn(stack, recent.run)
    spawn(stack, lambda: watch_loop_lag(metrics, interval_s, guard.lagged))
    stack.push_async_callback(peers.close)
    return recent, peers
