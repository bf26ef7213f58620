"""The routes behind the console: who may read them, and when a stream ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from service.access.keys import Keys
from service.common.errors import TooManyStreams
from service.metrics.service_metrics import value_of
from service.ops.console import STREAMS_MAX, EventStream
from service.store.health import RedisCheck
from tests.support.aio import asynchronous
from tests.support.serving import serving

OTHERS = Keys.parse(SecretStr("bob:another"), "tokens", rights=False)


@asynchronous
async def test_without_a_token_there_is_no_console_and_a_page_may_load_nothing_from_elsewhere() -> None:
    async with serving() as service:
        for path in ("/ops", "/ops/stream", "/ops/status", "/ops/figures"):
            assert (await service.client.get(path)).status_code == 404
    async with serving(operator=True) as service:
        page = await service.client.get("/ops")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        held = await service.client.get("/ops", headers={"If-None-Match": page.headers["etag"]})
        assert held.status_code == 304
        style = await service.client.get("/assets/base.css")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        for name in ("console.html", "pages.py", "..%2fpages.py", "nothing.css"):
            assert (await service.client.get(f"/assets/{name}")).status_code == 404
        del service.client.headers["Authorization"]
        assert (await service.client.get("/ops")).status_code == 200  # it asks for the token itself
        for path in ("/ops/stream", "/ops/status", "/ops/figures"):
            assert (await service.client.get(path)).status_code == 401


@asynchronous
async def test_what_came_of_the_lists_is_answered_without_redis_too_and_says_why_nothing_is_known() -> None:
    async with serving(operator=True) as service:
        answer = await service.client.get("/ops/outcomes")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["days"], told["groups"]) == ([], {})
    assert told["fault"] == "Redis cannot be used (nothing listens at the address)"


@asynchronous
async def test_a_stream_ends_with_its_token_and_with_the_process_and_there_are_only_so_many() -> None:
    async with serving(operator=True) as service:
        runtime = service.runtime
        console, held = runtime.console, []
        inflight = value_of(runtime.metrics.inflight)
        for _ in range(STREAMS_MAX):
            console.admit()
            held.append(console.stream("127.0.0.1", "test-token"))
            assert (await anext(held[-1])).startswith(b"event: status\n")
        with pytest.raises(TooManyStreams):
            console.admit()
        assert (await service.client.get("/ops/stream")).status_code == 503
        assert value_of(runtime.metrics.inflight) == inflight - STREAMS_MAX
        tokens, runtime.access.ops_tokens = runtime.access.ops_tokens, OTHERS
        assert b'"unauthorized"' in await anext(held[0])
        with pytest.raises(StopAsyncIteration):
            await anext(held[0])
        runtime.access.ops_tokens = tokens
        console.release()
        console.admit()
        runtime.process_state.draining = True
        for stream in held[1:]:
            assert b'"draining"' in await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        for _ in range(STREAMS_MAX):
            console.release()
        assert (console.streams, value_of(runtime.metrics.inflight)) == (0, inflight)


@asynchronous
async def test_a_stream_counts_from_its_admission_and_no_more_when_its_response_cannot_begin() -> None:
    async with serving(operator=True) as service:
        console = service.runtime.console
        for _ in range(STREAMS_MAX):
            console.admit()
        with pytest.raises(TooManyStreams):
            console.admit()

        async def nothing() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def gone(_: object) -> None:
            raise OSError("the connection is gone")

        response = EventStream(console, console.stream("127.0.0.1", "test-token"))
        with pytest.raises(BaseException):  # noqa: B017 - which one is the framework's choice
            await response({"type": "http", "asgi": {"spec_version": "2.4"}}, nothing, gone)
        assert console.streams == STREAMS_MAX - 1


@asynchronous
async def test_streams_share_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(operator=True) as service:
        console = service.runtime.console
        made: list[object] = []
        state = console._state

        def counted() -> dict[str, Any]:
            made.append(None)
            return state()

        monkeypatch.setattr(console, "_state", counted)
        streams = [console.stream("127.0.0.1", "test-token") for _ in range(STREAMS_MAX)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(made) == 1


@asynchronous
async def test_redis_is_asked_once_however_many_want_to_know_whether_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as service:
        asked: list[None] = []

        async def write() -> frozenset[str]:
            asked.append(None)
            return frozenset({"SUBSCRIBE"})

        store, now = service.runtime.space.store, [0.0]
        monkeypatch.setattr(store.server, "write", write)
        check = RedisCheck(store, service.runtime.metrics, lambda: now[0])
        assert all(await asyncio.gather(*(check.answers() for _ in range(20))))
        assert await check.answers()
        assert len(asked) == 1
        now[0] = 1.0
        assert await check.answers()
        assert len(asked) == 2
