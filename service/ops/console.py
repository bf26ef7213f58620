"""The console: one snapshot of the service, and a stream of snapshots, one a second.

Several workers are shown as one service. Each reports its own figures (`Worker`) on its own port, and the worker that
got the request sums them. A worker that does not answer is left out; the snapshot says how many workers are in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import httpx
import orjson
from fastapi.responses import StreamingResponse

from service.access.keys import Access
from service.common.deadline import Clock
from service.common.errors import ServiceError, TooManyStreams
from service.common.single_flight import SingleFlight
from service.coordination.clock import iso
from service.coordination.forced_mode import ForcedMode
from service.guard.guard import Guard
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import Metrics, value_of
from service.ops.recent_traffic import RECENT_S, RecentTraffic, Second, row, together, traffic
from service.ops.worker_peers import Peers, bearer, own_urls
from service.process.process_state import ProcessState
from service.settings.service_settings import Settings
from service.store.health import RedisCheck
from service.store.redis.redis_causes import meaning
from service.watch.summaries import merged_summary
from service.watch.traffic_watch import TrafficWatch

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

STREAMS_MAX = 16
# Seconds in the first snapshot of a stream: those that the charts show.
SERIES_S = 300
_TICK_S = 1.0
# How long streams share one snapshot. Less than a tick, otherwise a single stream would show each snapshot twice.
_SHARED_S = 0.9
# How often in a second a stream checks whether the process is shutting down.
_CHECKS = 8
_PEER_TIMEOUT_S = 1.0
# Proxies must not buffer the events.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_SEVERITY = {"closed": 0, "half_open": 1, "open": 2}

Worker = dict[str, Any]


def versions(settings: Settings, models: ModelSwitch) -> dict[str, Any]:
    """Returns the release, its commit, the model in service and its artefact folder."""
    return {
        "version": metadata.version("gpt4rec"),
        "git_commit": settings.git_commit,
        "model_version": models.active,
        "artifact": models.artifact,
    }


class Console:
    """Makes the snapshots: `figures` of this worker, `status` of all workers."""

    def __init__(
        self,
        recent: RecentTraffic,
        peers: Peers,
        *,
        settings: Settings,
        access: Access,
        metrics: Metrics,
        process: ProcessState,
        serving: Serving,
        models: ModelSwitch,
        guard: Guard,
        mode: ForcedMode,
        redis: RedisCheck,
        watch: TrafficWatch,
        below: str = "",
        wall_clock: Clock = time.time,
    ) -> None:
        self.recent = recent
        self._figures_path = f"{below}/ops/figures"
        self._settings = settings
        self._access = access
        self._metrics = metrics
        self._process = process
        self._serving = serving
        self._models = models
        self._guard = guard
        self._mode = mode
        self._redis = redis
        self._watch = watch
        self._wall_clock = wall_clock
        self._peers = peers
        self._known: dict[str, dict[int, Second]] = {}
        self._shared: SingleFlight[_Snapshot] = SingleFlight(_SHARED_S)
        self.streams = 0
        self._began = time.monotonic()

    def figures(self, since: int = 0) -> Worker:
        """Returns what this worker reports: its seconds after `since` (epoch seconds), and its present state."""
        return {"seconds": [second.to_json() for second in self.recent.seconds(since)], **self._state()}

    def _state(self) -> Worker:
        guard = self._guard.status()
        model = self._serving.model
        return {
            "breaker": guard["breaker"],
            "budgets": guard["budgets"],
            "shared": self._mode.shared,
            "redis": self._redis.usable,
            "redis_cause": self._redis.cause,
            "files_hang": self._metrics.hanging_files(),
            "mode": self._mode.current(),
            "queue": model.encoder.depth + model.decoder.depth,
            "inflight": int(value_of(self._metrics.inflight)),
            "loop_lag_ms": round(value_of(self._metrics.loop_lag) * 1000.0, 2),
            "model_version": model.version,
            "engine": model.healthy,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "watch": self._watch.summary(),
        }

    async def status(self, host: str, secret: str | None, *, series_s: int = 0, since: int = 0) -> dict[str, Any]:
        """Returns a snapshot of all workers.

        Args:
            host: The address on which the workers listen.
            secret: The ops token of the request, passed on to the other workers.
            series_s: How many of the last seconds to list one by one.
            since: Only seconds after this one (epoch seconds) are listed.
        """
        snapshot = await self._snapshot_now(host, secret)
        return snapshot.figures | {"series": snapshot.series(series_s, since)}

    async def _snapshot_now(self, host: str, secret: str | None) -> _Snapshot:
        settings = self._settings
        # The present second is not shown: not every worker has noted it.
        now = int(self._wall_clock())
        if settings.workers > 1:
            urls = own_urls(host, settings.port, settings.workers, self._figures_path)
            workers, noted = await self._ask_workers(urls, secret, now)
        else:
            workers, noted = [self._state()], [self.recent.seconds(now - SERIES_S - 1)]
        seconds = [second for second in together(noted) if now - SERIES_S <= second.t < now]
        mode = self._mode.mode
        left = None if mode.expires_at is None else max(0.0, round(mode.expires_at - self._mode.now(), 1))
        figures = {
            "at": iso(self._mode.now()),
            "service": {
                **versions(self._settings, self._models),
                "uptime_s": min((worker["uptime_s"] for worker in workers), default=0.0),
                "workers": settings.workers,
                "workers_answering": len(workers),
                "draining": self._process.draining,
                "engine": all(worker["engine"] for worker in workers),
            },
            "mode": {
                **self._mode.to_json(),
                "expires_in_s": left,
                "shared": all(worker["shared"] for worker in workers),
            },
            "redis": all(worker["redis"] for worker in workers),
            "redis_cause": (cause := next((worker["redis_cause"] for worker in workers if not worker["redis"]), None)),
            "redis_meaning": meaning(cause) if cause else None,
            "files_hang": sorted({file for worker in workers for file in worker["files_hang"]}),
            "links": {
                name: url for name, url in (("Grafana", settings.grafana_url), ("Runbook", settings.runbook_url)) if url
            },
            "budget_ms": settings.deadline_ms,
            "breaker": _breaker(workers),
            "burn_rate": _worst_burn([worker["budgets"]["burn_rate"] for worker in workers]),
            "queue": {
                "depth": sum(worker["queue"] for worker in workers),
                "inflight": sum(worker["inflight"] for worker in workers),
                "loop_lag_ms": max((worker["loop_lag_ms"] for worker in workers), default=0.0),
            },
            # The window is one of time: a second in which nothing happened counts too.
            "traffic": traffic([second for second in seconds if second.t >= now - RECENT_S]),
            "watch": merged_summary([worker["watch"] for worker in workers]),
            "workers": [_worker(worker) for worker in workers],
        }
        return _Snapshot(figures, seconds)

    async def _ask_workers(
        self, urls: Sequence[str], secret: str | None, now: int
    ) -> tuple[list[Worker], list[list[Second]]]:
        """Returns the state and the seconds of each worker that answers; asks only for seconds that are not known."""
        answers = await asyncio.gather(*(self._ask(url, secret) for url in urls), return_exceptions=True)
        workers, noted = [], []
        for url, answer in zip(urls, answers, strict=True):
            if not isinstance(answer, httpx.Response) or not answer.is_success:
                continue
            worker: Worker = orjson.loads(answer.content)
            new = {second.t: second for second in map(Second.parse, worker["seconds"])}
            known = {t: second for t, second in self._known.get(url, {}).items() if t >= now - SERIES_S} | new
            self._known[url] = known
            workers.append(worker)
            noted.append(list(known.values()))
        return workers, noted

    async def _ask(self, url: str, secret: str | None) -> httpx.Response:
        # The last known second may have got more counts.
        since = max(self._known.get(url, ()), default=1) - 1
        params = {"since": max(0, since)}
        return await self._peers.client.get(url, params=params, headers=bearer(secret), timeout=_PEER_TIMEOUT_S)

    async def stream(self, host: str, secret: str | None) -> AsyncIterator[bytes]:
        """Yields server-sent events: a `status` every second, and an `end` with the reason if the service ends it.

        The first `status` has the whole series, later ones the seconds since the one before.

        Args:
            host: The address on which the workers listen.
            secret: The ops token of the request; the stream ends when it is withdrawn.
        """
        since = 0
        while True:
            if self._process.draining:
                yield event("end", {"reason": "draining"})
                return
            try:
                self._access.ops(secret)
                snapshot = await self._shared.get(lambda: self._snapshot_now(host, secret))
            except ServiceError as error:
                yield event("end", {"reason": error.reason})
                return
            status = snapshot.figures | {"series": snapshot.series(SERIES_S, since)}
            if status["series"]:
                since = status["series"][-1]["t"]
            yield event("status", status)
            for _ in range(_CHECKS):
                if not self._process.draining:
                    await asyncio.sleep(_TICK_S / _CHECKS)

    def admit(self) -> None:
        """Counts a stream until `release`. A stream is not load: it is taken out of the requests in progress.

        Raises:
            TooManyStreams: The limit is reached.
        """
        if self.streams >= STREAMS_MAX:
            raise TooManyStreams(f"{STREAMS_MAX} streams are open")
        self.streams += 1
        self._metrics.inflight.dec()

    def release(self) -> None:
        """Ends a stream that was admitted."""
        self.streams -= 1
        self._metrics.inflight.inc()


class EventStream(StreamingResponse):
    """The response of an admitted stream; releases it when the response ends, even if it never began."""

    def __init__(self, console: Console, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._console.release()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    figures: dict[str, Any]
    seconds: list[Second]

    def series(self, last_s: int, since: int) -> list[dict[str, Any]]:
        shown = self.seconds[-last_s:] if last_s else []
        return [row(second) for second in shown if second.t > since]


def event(name: str, data: Mapping[str, Any]) -> bytes:
    """Returns one server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _breaker(workers: Sequence[Worker]) -> dict[str, Any]:
    """Returns the worst breaker of the workers, and the model's share of all traffic."""
    if not workers:
        return {"state": "open", "model_share": 0.0, "cause": None, "attempts": None}
    worst = max(workers, key=lambda worker: _SEVERITY[worker["breaker"]])
    shares = [worker["budgets"]["model_share"] for worker in workers]
    return {
        "state": worst["breaker"],
        "model_share": round(sum(shares) / len(shares), 4),
        "cause": worst["budgets"]["cause"],
        "attempts": worst["budgets"]["attempts"],
    }


def _worst_burn(rates: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns the highest rate of any worker, by objective and window."""
    worst: dict[str, dict[str, float]] = {}
    for worker in rates:
        for objective, windows in worker.items():
            highest = worst.setdefault(objective, {})
            for window, rate in windows.items():
                highest[window] = round(max(rate, highest.get(window, 0.0)), 3)
    return worst


def _worker(worker: Worker) -> dict[str, Any]:
    names = (
        "breaker",
        "mode",
        "shared",
        "redis",
        "redis_cause",
        "queue",
        "inflight",
        "loop_lag_ms",
        "model_version",
        "engine",
    )
    return {**{name: worker[name] for name in names}, "model_share": worker["budgets"]["model_share"]}
