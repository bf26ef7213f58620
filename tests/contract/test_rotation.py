"""Secrets of a running service change with their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.access import keys
from service.common.metrics import Metrics
from service.common.settings import DEFAULT_POLICIES
from tests.support.aio import asynchronous, eventually
from tests.support.hung_file import hang, held
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
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside, api_keys, policies = tmp_path / "aside", tmp_path / "api_keys", tmp_path / "policies.yaml"
    api_keys.write_text("shop:key")
    aside.write_text(keys.entry("alice", "second"))
    monkeypatch.setenv("GPT4REC_API_KEYS_FILE", str(api_keys))
    policies.write_bytes(DEFAULT_POLICIES.read_bytes())
    lane = Metrics.file_lane
    monkeypatch.setattr(Metrics, "file_lane", lambda self, file, _patience_s=0.0: lane(self, file, 0.2))
    async with serving(policies=policies) as service:
        for file in (api_keys, policies):
            hang(file)

        async def named() -> bool:
            answer = await service.client.get("/readyz")
            found = await service.client.get("/metrics")
            hanging = ("GPT4REC_API_KEYS_FILE", "policies")
            return answer.json()["checks"]["files"] is False and all(
                f'gpt4rec_file_hangs{{file="{one}"}} 1.0' in found.text for one in hanging
            )

        await eventually(named, within_s=20.0)
        assert (await service.client.get("/readyz")).status_code == 200
        operator = {"Authorization": "Bearer first"}
        status = (await service.client.get("/ops/status", headers=operator)).json()
        assert status["files_hang"] == ["GPT4REC_API_KEYS_FILE", "policies"]
        aside.replace(tokens)  # the other file of secrets is followed as ever

        async def rotated() -> bool:
            answer = await service.client.get("/ops/fallback", headers={"Authorization": "Bearer second"})
            return answer.status_code == 200

        await eventually(rotated, within_s=20.0)
        for file in (api_keys, policies):
            with held(file):
                pass
