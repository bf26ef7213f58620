"""The service in this process, with its real parts around a fake engine."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from service.api.runtime import Runtime
from service.app import create_app
from service.settings.service_settings import Settings
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import eventually
from tests.support.fakes import FakeEngine, away_store

_TOKEN = "test-token"
# An event without a timestamp happened in the minute of its request, so two equal questions with the end of a minute
# between them have other lists.
_LONG_PAST_MS = 1_700_000_900_000


@dataclass
class Service:
    app: FastAPI
    client: httpx.AsyncClient
    engine: FakeEngine

    @property
    def runtime(self) -> Runtime:
        found: Runtime = self.app.state.runtime
        return found

    async def recommend(self, **body: Any) -> dict[str, Any]:
        """Returns the answer to a question whose events all have a time: asked again, it is the same question."""
        if isinstance(events := body.get("events"), list):
            body["events"] = [{"timestamp": _LONG_PAST_MS, **event} for event in events]
        answer = await self.client.post("/recommend", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def post_events(self, user_id: str, *items: str, start_ms: int = 1_700_000_000_000) -> None:
        events = [
            {"user_id": user_id, "item_id": item, "type": "view", "timestamp": start_ms + 1000 * n}
            for n, item in enumerate(items)
        ]
        answer = await self.client.post("/events", json={"events": events})
        assert answer.status_code == 200, answer.text

    async def settled(self) -> None:
        """Waits for the work behind the answers."""

        async def idle() -> bool:
            await asyncio.sleep(0)  # records follow the answers
            space = self.runtime.space
            return space.write_behind.idle and not (space.recorder.lists_waiting or space.recorder.events_waiting)

        await eventually(idle, within_s=10.0)


@asynccontextmanager
async def serving(
    engine: FakeEngine | None = None,
    store: Store | None = None,
    *,
    redis_url: str | None = None,
    prefix: str = "test:",
    operator: bool = False,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A started service and a client, with the right of an operator where `operator` says so; without a store and a
    URL Redis is away."""
    with ExitStack() as stack:
        if "data_dir" not in settings:
            settings["data_dir"] = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if operator:
            settings["ops_tokens"] = f"tester:{_TOKEN}"
        async with _serving(engine or FakeEngine(), store, redis_url, prefix, settings) as service:
            if operator:
                service.client.headers["Authorization"] = f"Bearer {_TOKEN}"
            yield service


@asynccontextmanager
async def _serving(
    engine: FakeEngine, store: Store | None, redis_url: str | None, prefix: str, settings: dict[str, Any]
) -> AsyncIterator[Service]:
    own: Store | None = None
    away: dict[str, Any] = {}
    if store is None and redis_url is None:
        away["drain_timeout_s"] = 0.1  # what waits to be recorded cannot be written anyway
    if store is None:
        own = store = (
            away_store()
            if redis_url is None
            else Store(
                StoreSettings(url=redis_url, prefix=prefix, history_cap=12, read_timeout_ms=2000, write_timeout_ms=2000)
            )
        )
    # The time kept back for the rungs below the model is that of a busy test machine.
    patient = {"deadline_ms": 2000.0, "deadline_max_ms": 60_000.0, "fallback_reserve_ms": 100.0}
    # A fake engine is told to fail between equal questions, so it is asked each of them.
    asked = {"answers_mib": 0.0} if isinstance(engine, FakeEngine) else {}
    settings = {**patient, **away, **asked, "history_cap": 12, **settings}
    app = create_app(Settings(**settings), engine=engine, store=store)
    transport = httpx.ASGITransport(app=app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            try:
                yield Service(app, client, engine)
            finally:
                if isinstance(engine, FakeEngine):
                    engine.encode_go.set()
                    engine.go.set()  # before the lifespan ends: the batcher waits for the run under way
    finally:
        if own is not None:
            await own.close()
