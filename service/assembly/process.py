"""Opens what the process has once, and its spaces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from service.access import credentials, secret_files
from service.access.key_owners import KeyOwners
from service.access.keys import Access
from service.api.runtime import Runtime, SpaceRuntime
from service.api.space_of_request import space_path
from service.assembly.space import open_space
from service.batching.run_scheduler import NO_TURNS, GraphTurns
from service.common.errors import SettingsError, StartupError
from service.engine.interface import EngineLike
from service.guard.in_flight import InFlight
from service.guard.loop_turns import LoopTurns
from service.guard.loop_watch import LoopWatch
from service.lifecycle.resident_models import ResidentModels
from service.metrics.service_metrics import Metrics
from service.ops import space_metrics
from service.ops.console import Console
from service.ops.recent_traffic import RecentTraffic
from service.ops.worker_peers import Peers
from service.process.background import spawn
from service.process.process_state import ProcessState
from service.settings.environment import PREFIX
from service.settings.service_settings import Settings
from service.settings.space import DEFAULT, Space
from service.spaces import spaces_file
from service.spaces.spaces_file import SpaceEntry
from service.store.redis.embedded_valkey import EmbeddedValkey
from service.store.store import Store
from service.tracing import tracing

_EMBEDDED = "embedded"
# How long a shutdown waits for a collector to take the last spans.
_LAST_SPANS_S = 2.0


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller of the service has opened already; the rest is opened from the settings.

    Attributes:
        engine: The engine of the default space.
        store: The store of the default space.
        engines: The engines of further spaces, by name.
    """

    engine: EngineLike | None = None
    store: Store | None = None
    engines: Mapping[str, EngineLike] = field(default_factory=dict)


async def open_runtime(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, process_state: ProcessState, given: Given
) -> Runtime:
    """Opens the service: what the process has once, around the parts of its spaces.

    Args:
        stack: Closes the parts in reverse order, also after a failed start.
        settings: Of the service.
        metrics: Of the process.
        process_state: Of the process; the caller keeps it up to date.
        given: What is not opened here.

    Raises:
        StartupError: A setting, the file of the spaces, a policies file, an artefact or Redis cannot be used.
    """
    entries = spaces_file.read(settings)
    await _open_traces(stack, settings, metrics)
    process = _Process(stack, settings, metrics, process_state, RedisServer(stack, settings))
    access = process.open_access()
    # Every secret is read before any model is loaded: a mistake in the last one shows at once.
    counted = {entry.space.name: space_metrics.beside(metrics) for entry in entries}
    accesses = {entry.space.name: process.open_access_of(entry, access, counted[entry.space.name]) for entry in entries}
    default = await process.open(Space.default(settings), access, metrics, given.engine, given.store)
    for name, space in ((entry.space.name, entry.space) for entry in entries):
        try:
            await process.open(space, accesses[name], counted[name], given.engines.get(name), None)
        except StartupError as error:
            raise type(error)(f"space {name}: {error}") from error
    process.measure_lag()
    return default


class _Process:
    """Opens spaces around what the process has once."""

    def __init__(
        self,
        stack: AsyncExitStack,
        settings: Settings,
        metrics: Metrics,
        process_state: ProcessState,
        redis: RedisServer,
    ) -> None:
        self._stack, self._settings, self._metrics = stack, settings, metrics
        self._process_state, self._redis = process_state, redis
        self._owners = KeyOwners()
        self._spaces: dict[str, Runtime] = {}
        self._unspaced = metrics if settings.spaces is None else space_metrics.beside(metrics)
        # A space that is alone needs no turns.
        self._turns = None if settings.spaces is None else GraphTurns()
        self._loop_turns = LoopTurns()
        self._residents = ResidentModels(int(settings.models_mib * 2**20)) if settings.models_mib else None
        if self._residents is not None:
            stack.push_async_callback(self._residents.close)
        self._peers = Peers()
        stack.push_async_callback(self._peers.close)

    def open_access(self) -> Access:
        """Returns who may call in the default space; follows the files of secrets."""
        access = credentials.access(self._settings)
        self._owners.add(DEFAULT, access, f"{PREFIX}API_KEYS, {PREFIX}OPS_TOKENS and {PREFIX}METRICS_TOKENS")
        self._follow(credentials.files(access, self._settings.secret_trust_s, self._owners.taken), self._metrics)
        return access

    def open_access_of(self, entry: SpaceEntry, above: Access, metrics: Metrics) -> Access:
        """Returns who may call in a further space; follows its files of secrets.

        Raises:
            SettingsError: A file cannot be used, or the space would be open while the default space is closed.
        """
        if above.api_keys and entry.api_keys_file is None:
            raise SettingsError(
                f"{entry.place}: {PREFIX}API_KEYS closes the API, and anybody could call this space; give it an "
                "api_keys_file"
            )
        sources = credentials.space_sources(entry.place, entry.api_keys_file, entry.ops_tokens_file)
        access = credentials.access_of(sources, above, self._owners.taken)
        self._owners.add(entry.space.name, access, f"the secrets of {entry.place}")
        followed = credentials.files_of(sources, access, self._settings.secret_trust_s, self._owners.taken)
        self._follow(followed, metrics)
        return access

    async def open(
        self, space: Space, access: Access, metrics: Metrics, engine: EngineLike | None, store: Store | None
    ) -> Runtime:
        """Opens a space; arguments and errors as of `open_space`."""
        turns = NO_TURNS if self._turns is None else self._turns.of_space(space.share)
        parts = await open_space(self._stack, metrics, space, self._redis.url, engine, store, turns, self._residents)
        runtime = Runtime(
            settings=space.settings,
            access=access,
            metrics=metrics,
            process_state=self._process_state,
            space=parts,
            console=self._console(parts, access, metrics),
            peers=self._peers,
            spaces=self._spaces,
            owners=self._owners,
            several=self._settings.spaces is not None,
            in_flight=InFlight(metrics, self._loop_turns.space(space.settings.inflight_max)),
            unspaced=self._unspaced,
        )
        self._spaces[space.name] = runtime
        return runtime

    def _console(self, parts: SpaceRuntime, access: Access, metrics: Metrics) -> Console:
        recent = RecentTraffic(metrics)
        spawn(self._stack, recent.run)
        return Console(
            recent,
            self._peers,
            settings=parts.space.settings,
            access=access,
            metrics=metrics,
            process=self._process_state,
            serving=parts.serving,
            models=parts.models,
            guard=parts.guard,
            mode=parts.mode,
            redis=parts.redis,
            watch=parts.watch,
            below=space_path(parts.space.name),
        )

    def measure_lag(self) -> None:
        """Measures the lag of the event loop, and tells the guards of all spaces."""
        guards = [runtime.space.guard for runtime in self._spaces.values()]

        def tell(lag_s: float) -> None:
            for guard in guards:
                guard.lagged(lag_s)

        interval_s = self._settings.loop_lag_interval_ms / 1000.0
        spawn(self._stack, LoopWatch(self._metrics, self._loop_turns, interval_s, tell).run)

    def _follow(self, followed: credentials.Files, metrics: Metrics) -> None:
        if followed:
            spawn(self._stack, lambda: secret_files.follow(followed, metrics))


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
