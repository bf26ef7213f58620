"""Secrets of a running service change with their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.access import keys
from tests.support.aio import asynchronous, eventually
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
