"""/metrics, /healthz and /readyz of a process without the service's HTTP, and what its start refuses."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx
import pytest
from pydantic import SecretStr

from service.access import credentials
from service.api.listeners import bind
from service.common.errors import SettingsError
from service.intake.side_door import open_side_door
from service.settings.kafka_settings import KafkaSettings
from service.settings.service_settings import Settings
from tests.support.aio import asynchronous


@asynchronous
async def test_health_follows_the_checks_and_metrics_need_a_token_where_one_is_set() -> None:
    checks = {"alive": True, "storing": True}
    access = credentials.access(Settings(metrics_tokens=SecretStr("prometheus:of-metrics")))
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        await open_side_door(stack, sock, access, lambda: b"a 1\n", lambda: checks, lambda: {"topic": "t"})
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
            assert (await client.get("/metrics")).status_code == 401
            scraped = await client.get("/metrics", headers={"Authorization": "Bearer of-metrics"})
            assert (scraped.status_code, scraped.text) == (200, "a 1\n")
            assert scraped.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz", "/other")] == [
                200,
                200,
                404,
            ]
            checks["storing"] = False
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()) == (
                503, {"status": "failing", "checks": {"alive": True, "storing": False}, "topic": "t"},
            )  # fmt: skip
            assert (await client.get("/healthz")).status_code == 200
            checks["alive"] = False
            assert (await client.get("/healthz")).status_code == 503


def test_an_intake_does_not_start_a_redis_of_its_own() -> None:
    process = pytest.importorskip("service.intake.process", reason="confluent-kafka is not installed")
    with pytest.raises(SettingsError, match="the Redis of the service"):
        process.ingest(Settings(), KafkaSettings(kafka_brokers="127.0.0.1:1"), lambda _: None)
