"""What operators see: one snapshot of the service, and the stream of such snapshots, a second apart.

Several workers are shown as one service: each tells what it counted (`Worker`), at the port it has for itself, and
whoever was asked adds up. A worker that does not answer is missed, and the snapshot says how many are in it.
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
from service.common.metrics import Metrics
from service.common.process_state import Lifecycle
from service.common.settings import Settings
from service.common.single_flight import Held
from service.coordination.clock import iso
from service.coordination.forced_mode import ModeKeeper
from service.guard.guard import Guard
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.served_model import Serving
from service.ops.recent_traffic import RECENT_S, Live, Second, row, together, traffic
from service.ops.worker_peers import Peers, bearer, own_urls

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

STREAMS_MAX = 16
# Of a stream's first snapshot: what the charts show.
SERIES_S = 300
_TICK_S = 1.0
# So long streams show the same snapshot: less than a tick, or a stream alone would show each twice.
_SHARED_S = 0.9
# Times a second at which a stream looks whether the process stops.
_LOOKS = 8
_PEER_TIMEOUT_S = 1.0
# Proxies must pass each event on as it comes.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_SEVERITY = {"closed": 0, "half_open": 1, "open": 2}

Worker = dict[str, Any]


def versions(settings: Settings, models: ModelSwitch) -> dict[str, Any]:
    """Returns what is running: the release, its commit, the model in service and its artefact folder."""
    return {
        "version": metadata.version("gpt4rec"),
        "git_commit": settings.git_commit,
        "model_version": models.active,
        "artifact": models.artifact,
    }


class Console:
    """Makes the snapshots. `figures` may be asked of any worker; `status` is of them all."""

    def __init__(
        self,
        live: Live,
        peers: Peers,
        *,
        settings: Settings,
        access: Access,
        metrics: Metrics,
        process: Lifecycle,
        serving: Serving,
        models: ModelSwitch,
        guard: Guard,
        mode: ModeKeeper,
        wall_clock: Clock = time.time,
    ) -> None:
        self.live = live
        self._settings = settings
        self._access = access
        self._metrics = metrics
        self._process = process
        self._serving = serving
        self._models = models
        self._guard = guard
        self._mode = mode
        self._wall_clock = wall_clock
        self._peers = peers
        self._known: dict[str, dict[int, Second]] = {}
        self._shared: Held[_Snapshot] = Held(_SHARED_S)
        self.streams = 0
        self._began = time.monotonic()

    def figures(self, since: int = 0) -> Worker:
        """Of this process alone: its seconds after `since`, and its state now."""
        return {"seconds": [second.to_json() for second in self.live.seconds(since)], **self._state()}

    def _state(self) -> Worker:
        told = self._guard.status()
        model = self._serving.model
        return {
            "breaker": told["breaker"],
            "budgets": told["budgets"],
            "shared": self._mode.shared,
            "redis": self._mode.in_sync,
            "mode": self._mode.current(),
            "queue": model.encoder.depth + model.decoder.depth,
            "inflight": int(self._metrics.inflight._value.get()),
            "loop_lag_ms": round(self._metrics.loop_lag._value.get() * 1000.0, 2),
            "model_version": model.version,
            "engine": model.healthy,
            "uptime_s": round(time.monotonic() - self._began, 1),
        }

    async def status(self, host: str, secret: str | None, *, series_s: int = 0, since: int = 0) -> dict[str, Any]:
        """The snapshot, with the rows of the last `series_s` seconds, of those after `since`."""
        snapshot = await self._snapshot_now(host, secret)
        return snapshot.told | {"series": snapshot.series(series_s, since)}

    async def _snapshot_now(self, host: str, secret: str | None) -> _Snapshot:
        settings = self._settings
        # A second is shown when every worker has noted it.
        now = int(self._wall_clock())
        if settings.workers > 1:
            urls = own_urls(host, settings.port, settings.workers, "/ops/figures")
            found, noted = await self._ask_workers(urls, secret, now)
        else:
            found, noted = [self._state()], [self.live.seconds(now - SERIES_S - 1)]
        seconds = [second for second in together(noted) if now - SERIES_S <= second.t < now]
        mode = self._mode.mode
        left = None if mode.expires_at is None else max(0.0, round(mode.expires_at - self._mode.now(), 1))
        told = {
            "at": iso(self._mode.now()),
            "service": {
                **versions(self._settings, self._models),
                "uptime_s": min((worker["uptime_s"] for worker in found), default=0.0),
                "workers": settings.workers,
                "workers_answering": len(found),
                "draining": self._process.draining,
                "engine": all(worker["engine"] for worker in found),
            },
            "mode": {
                **self._mode.to_json(),
                "expires_in_s": left,
                "shared": all(worker["shared"] for worker in found),
            },
            "redis": all(worker["redis"] for worker in found),
            "budget_ms": settings.deadline_ms,
            "breaker": _breaker(found),
            "burn_rate": _worst_burn([worker["budgets"]["burn_rate"] for worker in found]),
            "queue": {
                "depth": sum(worker["queue"] for worker in found),
                "inflight": sum(worker["inflight"] for worker in found),
                "loop_lag_ms": max((worker["loop_lag_ms"] for worker in found), default=0.0),
            },
            # Seconds without anything are in no worker's way: the window is one of time.
            "traffic": traffic([second for second in seconds if second.t >= now - RECENT_S]),
            "workers": [_worker(worker) for worker in found],
        }
        return _Snapshot(told, seconds)

    async def _ask_workers(
        self, urls: Sequence[str], secret: str | None, now: int
    ) -> tuple[list[Worker], list[list[Second]]]:
        """What each worker tells, and its seconds; the ones that do not answer are left out. Only what is new since the
        last answer is asked for."""
        answers = await asyncio.gather(*(self._ask(url, secret) for url in urls), return_exceptions=True)
        found, noted = [], []
        for url, answer in zip(urls, answers, strict=True):
            if not isinstance(answer, httpx.Response) or not answer.is_success:
                continue
            worker: Worker = orjson.loads(answer.content)
            new = {second.t: second for second in map(Second.parse, worker["seconds"])}
            known = {t: second for t, second in self._known.get(url, {}).items() if t >= now - SERIES_S} | new
            self._known[url] = known
            found.append(worker)
            noted.append(list(known.values()))
        return found, noted

    async def _ask(self, url: str, secret: str | None) -> httpx.Response:
        # The last second that is known may have grown.
        since = max(self._known.get(url, ()), default=1) - 1
        params = {"since": max(0, since)}
        return await self._peers.client.get(url, params=params, headers=bearer(secret), timeout=_PEER_TIMEOUT_S)

    async def stream(self, host: str, secret: str | None) -> AsyncIterator[bytes]:
        """Server-sent events: a `status` a second, the first with the series so far, the others with what came since;
        and an `end` that says why, where it is the service that ends."""
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
            told = snapshot.told | {"series": snapshot.series(SERIES_S, since)}
            if told["series"]:
                since = told["series"][-1]["t"]
            yield event("status", told)
            for _ in range(_LOOKS):
                if not self._process.draining:
                    await asyncio.sleep(_TICK_S / _LOOKS)

    def admit(self) -> None:
        """Counts a stream until `release`. Somebody who looks on is no load: it does not count among the requests under
        way. Raises TooManyStreams where no more may be opened."""
        if self.streams >= STREAMS_MAX:
            raise TooManyStreams(f"{STREAMS_MAX} streams are open")
        self.streams += 1
        self._metrics.inflight.dec()

    def release(self) -> None:
        self.streams -= 1
        self._metrics.inflight.inc()


class EventStream(StreamingResponse):
    """A stream that was admitted, and is released when its response ends, also where it never begins."""

    def __init__(self, console: Console, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._console.release()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    told: dict[str, Any]
    seconds: list[Second]

    def series(self, last_s: int, since: int) -> list[dict[str, Any]]:
        shown = self.seconds[-last_s:] if last_s else []
        return [row(second) for second in shown if second.t > since]


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _breaker(workers: Sequence[Worker]) -> dict[str, Any]:
    """Each worker has one; the worst state is shown, and the part of all traffic that the model gets."""
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
    """By objective and window, of the worker that burns fastest."""
    found: dict[str, dict[str, float]] = {}
    for one in rates:
        for objective, windows in one.items():
            mine = found.setdefault(objective, {})
            for window, rate in windows.items():
                mine[window] = round(max(rate, mine.get(window, 0.0)), 3)
    return found


def _worker(told: Worker) -> dict[str, Any]:
    names = ("breaker", "mode", "shared", "redis", "queue", "inflight", "loop_lag_ms", "model_version", "engine")
    return {**{name: told[name] for name in names}, "model_share": told["budgets"]["model_share"]}
