"""Rates of API keys: shared by replicas, refused with 429, and no reason to fail while Redis is away."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.access.rate_limits import rate_of
from service.common.errors import SettingsError
from service.schemas.answer import Problem
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.valkey import Valkey

BODY = {"events": [{"item_id": "1"}]}
KEYS: dict[str, Any] = {"api_keys": "shop:k1,crm:k2:users", "ops_tokens": "alice:t1", "api_rate": "5/hour"}


async def ask(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/recommend", json=BODY, headers={"X-API-Key": key})


@asynchronous
async def test_a_key_has_one_rate_on_all_replicas_and_others_have_their_own(shared_valkey: Valkey) -> None:
    where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": "rate:"}
    async with serving(**where, **KEYS) as one, serving(**where, **KEYS) as two:
        answers = [await ask(service.client, "k1") for service in (one, two) * 4]
        other = await ask(one.client, "k2")
        operator = await ask(two.client, "t1")
        elsewhere = await one.client.get("/items/1/similar", headers={"X-API-Key": "k1"})
        probe = await one.client.get("/healthz", headers={"X-API-Key": "k1"})
        metrics = (await one.client.get("/metrics")).text
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert (other.status_code, operator.status_code, elsewhere.status_code, probe.status_code) == (200, 200, 429, 200)
    refused = answers[-1]
    assert Problem.model_validate(refused.json()).title == "Too many requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert 'gpt4rec_rate_checks_total{outcome="refused",where="shared"}' in metrics


@asynchronous
async def test_a_key_that_was_refused_is_refused_without_asking_redis_until_there_is_room(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="refused:", **KEYS) as service:
        assert [(await ask(service.client, "k1")).status_code for _ in range(6)] == [200] * 5 + [429]
        asked: list[object] = []

        async def count(*arguments: object) -> int:
            asked.append(arguments)
            return 1

        monkeypatch.setattr(service.runtime.space.store, "run_script", count)
        again = [await ask(service.client, "k1") for _ in range(3)]
        assert asked == []
        other = await ask(service.client, "k2")
        assert len(asked) == 1
    assert [answer.status_code for answer in again] == [429] * 3
    assert all(1 <= int(answer.headers["retry-after"]) <= 3600 for answer in again)
    assert other.status_code == 200


@asynchronous
async def test_while_redis_is_away_each_process_counts_by_itself_and_still_answers() -> None:
    async with serving(**KEYS) as service:
        answers = [await ask(service.client, "k1") for _ in range(7)]
        metrics = (await service.client.get("/metrics")).text
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert 'gpt4rec_rate_checks_total{outcome="refused",where="own"} 2.0' in metrics
    assert 'gpt4rec_redis_errors_total{operation="rate"} 1.0' in metrics


@asynchronous
async def test_without_a_rate_nothing_is_counted(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="norate:", api_keys="shop:k1") as service:
        answers = [await ask(service.client, "k1") for _ in range(10)]
        metrics = (await service.client.get("/metrics")).text
    assert {answer.status_code for answer in answers} == {200}
    assert "gpt4rec_rate_checks_total{" not in metrics


@pytest.mark.parametrize("text", ["fast", "-1/second", "10", "1/fortnight", "1.5/second"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="GPT4REC_API_RATE"):
        rate_of(text)
