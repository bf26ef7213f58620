"""The parts of a running service, as the routes reach them. Built by `service.app`, and nowhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import orjson
from fastapi import Request, Response

from service.auth import Access, Caller, presented_secret
from service.behind import WriteBehind
from service.call import Call
from service.console import Console
from service.deadline import Clock
from service.errors import StoreUnavailable
from service.explorer import Explorer
from service.guard import Guard
from service.held import Held
from service.ingest import Ingest
from service.keeper import StateKeeper
from service.merged_metrics import Peers
from service.metrics import BREAKER_STATES, MODES, Metrics
from service.mode import ModeKeeper
from service.models import Models
from service.policies import PolicyBook
from service.policy_keeper import PolicyKeeper
from service.rates import Rates
from service.recommender import Recommender
from service.served import ServedModel, Serving
from service.settings import Settings
from service.store import Store

_PING_S = 1.0


class RedisCheck:
    """Whether Redis answers. Redis is asked once a second at most, however often anybody wants to know."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._held: Held[bool] = Held(_PING_S, clock)

    async def answers(self) -> bool:
        return await self._held.get(self._ask)

    async def _ask(self) -> bool:
        try:
            await self._store.ping()
        except StoreUnavailable:
            self._metrics.redis_errors.labels("ping").inc()
            return False
        return True


@dataclass(slots=True)
class Lifecycle:
    """Where the process is: started once everything is warm, draining from the first signal to stop."""

    started: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    settings: Settings
    access: Access
    metrics: Metrics
    lifecycle: Lifecycle
    serving: Serving
    store: Store
    policies: PolicyBook
    policy_keeper: PolicyKeeper
    models: Models
    guard: Guard
    mode: ModeKeeper
    states: StateKeeper
    behind: WriteBehind
    recommender: Recommender
    ingest: Ingest
    console: Console
    peers: Peers
    redis: RedisCheck
    rates: Rates | None
    explorer: Explorer | None = None
    wall_clock: Clock = field(default=time.time)

    @property
    def model(self) -> ServedModel:
        return self.serving.model

    def latest_ms(self) -> int:
        """The latest timestamp an event may carry now."""
        return int((self.wall_clock() + self.settings.future_tolerance_s) * 1000.0)

    def now_ms(self) -> int:
        return int(self.wall_clock() * 1000.0)

    def fallback_status(self) -> dict[str, Any]:
        return {**self.mode.to_json(), **self.guard.status()}

    def versions(self) -> dict[str, Any]:
        return {
            "version": metadata.version("gpt4rec"),
            "git_commit": self.settings.git_commit,
            "model_version": self.model.version,
            "artifact": self.models.artifact,
        }

    def readiness(self) -> dict[str, bool]:
        """The checks behind /readyz; all but `redis` must hold."""
        return {
            "started": self.lifecycle.started,
            "engine": self.model.healthy,
            "not_draining": not self.lifecycle.draining,
        }

    def render_metrics(self) -> bytes:
        """The exposition text; gauges that mirror a state are set as it is read."""
        m = self.metrics
        m.one_hot(m.breaker_state, BREAKER_STATES, self.guard.breaker.state.value)
        m.one_hot(m.fallback_mode, MODES, self.mode.current())
        m.queue_depth.set(self.model.encoder.depth + self.model.decoder.depth)
        for objective, rates in self.guard.breaker.budgets.burn_rates().items():
            for window, rate in rates.items():
                m.burn_rate.labels(objective, window).set(rate)
        return m.render()


def runtime(request: Request) -> Runtime:
    found: Runtime = request.app.state.runtime
    return found


async def admitted(request: Request) -> Runtime:
    """The service, for a request of a frontend that has a key where one is needed, and is within its rate.

    Raises:
        Unauthorized, TooManyRequests.
    """
    service = runtime(request)
    await counted(request, service.access.api(secret_of(request)))
    return service


async def counted(request: Request, caller: Caller | None) -> None:
    """Notes who calls, and counts it where keys have a rate. Raises TooManyRequests."""
    if caller is None:
        return
    call_of(request).facts["caller"] = caller.name
    rates = runtime(request).rates
    if rates is not None:
        await rates.take(caller)


def call_of(request: Request) -> Call:
    call: Call = request.scope["state"]["call"]
    return call


def secret_of(request: Request) -> str | None:
    headers = request.headers
    return presented_secret(headers.get("authorization"), headers.get("x-api-key"))


def reply(request: Request, body: dict[str, Any], status: int = 200) -> Response:
    """JSON with the request's id in it."""
    body.setdefault("request_id", call_of(request).request_id)
    with runtime(request).metrics.stage("serialize"):
        content = orjson.dumps(body)
    return Response(content, status, media_type="application/json")
