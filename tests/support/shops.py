"""Several spaces in this process: a file of them, and the service around fake engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from service.app import create_app
from service.settings.service_settings import Settings
from tests.support.fakes import FakeEngine
from tests.support.serving import Service

# Those of a busy test machine.
PATIENT: dict[str, Any] = {
    "deadline_ms": 2000.0, "deadline_max_ms": 60_000.0, "fallback_reserve_ms": 100.0, "redis_read_timeout_ms": 2000.0,
    "redis_write_timeout_ms": 2000.0, "answers_mib": 0.0, "history_cap": 12,
}  # fmt: skip


def secret_file(folder: Path, name: str, *entries: str) -> Path:
    """A file of secrets."""
    path = folder / name
    path.write_text("\n".join(entries))
    return path


def spaces_file(folder: Path, spaces: Mapping[str, Mapping[str, Any]]) -> Path:
    """The file of these spaces; each has an artefact folder that a fake engine stands for."""
    path = folder / "spaces.yaml"
    described = {name: {"artifact": f"artifacts/{name}", **entry} for name, entry in spaces.items()}
    path.write_text(yaml.safe_dump({"spaces": described}))
    return path


def as_callers(*names: str) -> Sequence[dict[str, str]]:
    """The headers of a frontend for each secret."""
    return [{"Authorization": f"Bearer {name}"} for name in names]


@asynccontextmanager
async def shops(
    folder: Path, redis_url: str, spaces: Mapping[str, Mapping[str, Any]], **settings: Any
) -> AsyncIterator[Service]:
    """The service with these spaces beside the default one, each with a fake engine, and a client."""
    engines = {name: FakeEngine() for name in spaces}
    described = {"redis_url": redis_url, "redis_prefix": "shops:", "data_dir": folder / "data", **PATIENT, **settings}
    made = Settings(spaces=spaces_file(folder, spaces), **described)
    engine = FakeEngine()
    app = create_app(made, engine=engine, engines=engines)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        try:
            yield Service(app, client, engine)
        finally:
            for one in (engine, *engines.values()):
                one.encode_go.set()
                one.go.set()
