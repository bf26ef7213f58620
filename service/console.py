"""What operators see: one snapshot of the service, and the stream of such snapshots, a second apart.

Several workers are shown as one service: each tells what it counted (`Worker`), at the port it has for itself, and
whoever was asked adds up. A worker that does not answer is missed, and the snapshot says how many are in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from service.errors import ServiceError, TooManyStreams
from service.live import RECENT_S, Live, Second, row, together, traffic
from service.merged_metrics import own_urls
from service.mode import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.runtime import Runtime

STREAMS_MAX = 16
# Of a stream's first snapshot: what the charts show.
SERIES_S = 300
_TICK_S = 1.0
# Times a second at which a stream looks whether the process stops.
_LOOKS = 8
_PEER_TIMEOUT_S = 1.0
_SEVERITY = {"closed": 0, "half_open": 1, "open": 2}

Worker = dict[str, Any]


class Console:
    """Makes the snapshots. `figures` may be asked of any worker; `status` is of them all."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.streams = 0
        self._began = time.monotonic()

    def figures(self, service: Runtime, since: int = 0) -> Worker:
        """Of this process alone: its seconds after `since`, and its state now."""
        told = service.guard.status()
        model = service.model
        return {
            "seconds": [second.to_json() for second in self.live.seconds(since)],
            "breaker": told["breaker"],
            "budgets": told["budgets"],
            "shared": service.mode.shared,
            "redis": service.mode.in_sync,
            "mode": service.mode.current(),
            "queue": model.encoder.depth + model.decoder.depth,
            "inflight": int(service.metrics.inflight._value.get()),
            "loop_lag_ms": round(service.metrics.loop_lag._value.get() * 1000.0, 2),
            "model_version": model.version,
            "engine": model.healthy,
            "uptime_s": round(time.monotonic() - self._began, 1),
        }

    async def status(
        self, service: Runtime, host: str, secret: str | None, *, series_s: int = 0, since: int = 0
    ) -> dict[str, Any]:
        """The snapshot, with the rows of the last `series_s` seconds, of those after `since`."""
        settings = service.settings
        if settings.workers > 1:
            found = await _ask_workers(own_urls(host, settings.port, settings.workers, "/ops/figures"), secret)
        else:
            found = [self.figures(service)]
        # A second is shown when every worker has noted it.
        now = int(service.wall_clock())
        seconds = [second for second in together(map(_seconds, found)) if now - SERIES_S <= second.t < now]
        mode, versions = service.mode.mode, service.versions()
        left = None if mode.expires_at is None else max(0.0, round(mode.expires_at - service.mode.now(), 1))
        shown = seconds[-series_s:] if series_s else []
        return {
            "at": iso(service.mode.now()),
            "service": {
                **versions,
                "uptime_s": min((worker["uptime_s"] for worker in found), default=0.0),
                "workers": settings.workers,
                "workers_answering": len(found),
                "draining": service.lifecycle.draining,
                "engine": all(worker["engine"] for worker in found),
            },
            "mode": {
                **service.mode.to_json(),
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
            "series": [row(second) for second in shown if second.t > since],
        }

    async def stream(self, service: Runtime, host: str, secret: str | None) -> AsyncIterator[bytes]:
        """Server-sent events: a `status` a second, the first with the series so far, the others with what came since;
        and an `end` that says why, where it is the service that ends."""
        since = 0
        with self._watched(service):
            while True:
                if service.lifecycle.draining:
                    yield event("end", {"reason": "draining"})
                    return
                try:
                    service.access.ops(secret)
                    told = await self.status(service, host, secret, series_s=SERIES_S, since=since)
                except ServiceError as error:
                    yield event("end", {"reason": error.reason})
                    return
                if told["series"]:
                    since = told["series"][-1]["t"]
                yield event("status", told)
                for _ in range(_LOOKS):
                    if not service.lifecycle.draining:
                        await asyncio.sleep(_TICK_S / _LOOKS)

    def admit(self) -> None:
        """Raises TooManyStreams where no more may be opened."""
        if self.streams >= STREAMS_MAX:
            raise TooManyStreams(f"{STREAMS_MAX} streams are open")

    @contextmanager
    def _watched(self, service: Runtime) -> Iterator[None]:
        """Somebody who looks on is no load: a stream does not count among the requests under way."""
        self.streams += 1
        service.metrics.inflight.dec()
        try:
            yield
        finally:
            self.streams -= 1
            service.metrics.inflight.inc()


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


async def _ask_workers(urls: Sequence[str], secret: str | None) -> list[Worker]:
    """What each worker tells; the ones that do not answer are left out."""
    async with httpx.AsyncClient(timeout=_PEER_TIMEOUT_S, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {secret}"}
        answers = await asyncio.gather(*(client.get(url, headers=headers) for url in urls), return_exceptions=True)
    return [orjson.loads(a.content) for a in answers if isinstance(a, httpx.Response) and a.is_success]


def _seconds(worker: Worker) -> list[Second]:
    return [Second.parse(told) for told in worker["seconds"]]


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
