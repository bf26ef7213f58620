"""Secrets of a running service change with their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from loadtests.harness.hung_file import hang, held
from service.access import keys
from service.engine.engine import Engine
from service.metrics.service_metrics import Metrics
from service.process.disk_lane import DiskLane
from service.settings.service_settings import DEFAULT_POLICIES
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import serving


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tokens"
    path.write_text(keys.entry("alice", "first"))
    monkeypatch.setenv("GPT4REC_OPS_TOKENS_FILE", str(path))
    return path


@asynchronous
async def test_a_token_is_withdrawn_from_a_running_service(tokens: Path) -> None:
    async with serving() as service:

        async def status(token: str) -> int:
            answer = await service.client.get("/ops/fallback", headers={"Authorization": f"Bearer {token}"})
            return answer.status_code

        assert (await status("first"), await status("second")) == (200, 401)
        aside = tokens.with_suffix(".new")
        aside.write_text(f"# rotated\n{keys.entry('alice', 'second')}\n")
        aside.replace(tokens)

        async def rotated() -> bool:
            return (await status("first"), await status("second")) == (401, 200)

        await eventually(rotated, within_s=20.0)


@asynchronous
async def test_a_file_that_hangs_holds_up_no_other_and_is_named(
    tokens: Path, random_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    api_keys, policies, updates, aside = (tmp_path / name for name in ("api_keys", "policies", "updates", "aside"))
    api_keys.write_text("shop:key")
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    updates.touch()
    aside.write_text(keys.entry("alice", "second"))
    monkeypatch.setenv("GPT4REC_API_KEYS_FILE", str(api_keys))
    lanes = made(monkeypatch)
    async with serving(cast("FakeEngine", engine), policies=policies, catalogue_updates=updates) as service:
        for lane in lanes:
            lane._patience_s = 0.2
        followed = {"GPT4REC_API_KEYS_FILE": api_keys, "catalogue_updates": updates, "policies": policies}
        for file in followed.values():
            hang(file)
        operator = {"Authorization": "Bearer first"}

        async def named() -> bool:
            answer = await service.client.get("/ops/status", headers=operator)
            return bool(answer.json()["files_hang"] == sorted(followed))

        await eventually(named, within_s=20.0)
        ready = await service.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["checks"]["files"]) == (200, "degraded", False)
        found = await service.client.get("/metrics")
        assert all(f'gpt4rec_file_hangs{{file="{name}"}} 1.0' in found.text for name in followed)
        aside.replace(tokens)  # the other file of secrets is followed as ever

        async def rotated() -> bool:
            answer = await service.client.get("/ops/fallback", headers={"Authorization": "Bearer second"})
            return answer.status_code == 200

        await eventually(rotated, within_s=20.0)
        for file in followed.values():
            with held(file):
                pass


def made(monkeypatch: pytest.MonkeyPatch) -> list[DiskLane]:
    """The lanes that will be made."""
    lanes: list[DiskLane] = []
    make = Metrics.file_lane

    def noted(metrics: Metrics, *args: Any) -> DiskLane:
        lanes.append(make(metrics, *args))
        return lanes[-1]

    monkeypatch.setattr(Metrics, "file_lane", noted)
    return lanes
