"""Searches without an item in a history: stored, read by models that know them, moved, shown and erased."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from export import artifact_writer
from export.parity_gate import Probe
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from tests.support.aio import asynchronous
from tests.support.artifacts import random_parts
from tests.support.fakes import FakeEngine
from tests.support.networks import random_network
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

START_MS = 1_500_000_000_000
K = 6
BEAM: dict[str, Any] = {"strategy": "beam", "beam_width": 5}


@pytest.fixture(scope="module")
def network() -> GPT4Rec:
    return random_network(encoder="behaviours", window=8, scale=1.5, query_buckets=64)


@pytest.fixture(scope="module")
def engine(network: GPT4Rec, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An artefact that has passed the parity gate on histories with searches."""
    parts = random_parts(network)
    events = [history(parts.vocabulary, n) for n in (0, 1, 5, 12)]
    folder, result = artifact_writer.export(
        parts, tmp_path_factory.mktemp("a"), "float32", [Probe(one) for one in events]
    )
    assert result.failures == []
    return Engine(Artifact.open(folder), device="cpu", threads=1)


def history(vocabulary: Any, n: int) -> EventArrays:
    items = [f"i{i}" if i % 3 else "" for i in range(n)]
    kinds = [("purchase", "view")[i % 2] if item else "search" for i, item in enumerate(items)]
    queries = [None if item else f"tea {i}" for i, item in enumerate(items)]
    found: EventArrays = vocabulary.events(items, kinds, [START_MS + 1000 * i for i in range(n)], queries)
    return found


@torch.no_grad()
def test_onnx_equals_torch_on_histories_with_searches_at_every_length_and_padded(
    network: GPT4Rec, engine: Engine
) -> None:
    vocabulary = engine.artifact.vocabulary
    wanted, jobs = [], []
    for n in range(1, 11):
        events = history(vocabulary, n)
        seen = encoder_input(events, 8, vocabulary)
        item, kind, time_ms = (torch.from_numpy(a)[None] for a in (seen.item, seen.type, seen.time_ms))
        assert seen.query is not None
        length, query = torch.tensor([len(seen)]), torch.from_numpy(seen.query)[None]
        wanted.append(network.encode(item, kind, time_ms, length, query=query)[0].numpy())
        jobs.append(EncodeJob(events=events.after(max(0, n - 8)), from_start=n <= 8))
    padded = Engine(engine.artifact, device="cpu", threads=1, pad=True)
    for one in (engine, padded):
        for state, h in zip(one.encode(jobs), wanted, strict=True):
            assert isinstance(state, EncoderState)
            assert state.h == pytest.approx(h, abs=1e-4)


def search(user: str, at: int, query: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "type": "search", "timestamp": START_MS + 1000 * at, "query": query, **more}


def view(user: str, at: int, item: str) -> dict[str, Any]:
    return {"user_id": user, "type": "view", "timestamp": START_MS + 1000 * at, "item_id": item}


async def listed(service: Service, user: str) -> list[str]:
    answer = await service.recommend(user_id=user, k=K, decoding=BEAM)
    assert answer["rung"] == "full"
    return [item["item_id"] for item in answer["items"]]


async def post(service: Service, *events: dict[str, Any]) -> dict[str, Any]:
    response = await service.client.post("/events", json={"events": list(events)})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@asynchronous
async def test_a_search_changes_the_list_at_once_is_shown_moved_repeated_without_effect_and_erased(
    engine: Engine, shared_valkey: Valkey
) -> None:
    prefix = f"searches:{uuid.uuid4().hex}:"
    where: dict[str, Any] = {
        "redis_url": shared_valkey.url, "prefix": prefix, "deadline_ms": 30_000.0, "history_searches": True,
        "operator": True,
    }  # fmt: skip
    async with serving(cast("FakeEngine", engine), **where) as one, serving(cast("FakeEngine", engine), **where) as two:
        await post(one, view("u", 0, "i1"), view("u", 1, "i2"))
        await post(
            one, view("v", 0, "i1"), search("v", 1, "tea 3"), view("v", 1, "i2"), search("v", 3, " green \x1f tea")
        )
        assert (await post(two, search("v", 3, " green \x1f tea")))["duplicates"] == 1
        for _ in range(2):
            first = [await listed(service, "v") for service in (one, two)]
            assert first[0] == first[1] != await listed(one, "u")
            await one.settled()
            await two.settled()
        shown = (await one.client.get("/users/v")).json()["history"]
        assert [event["query"] for event in shown] == [None, "tea 3", None, "green tea"]
        assert shown[1]["item_id"] is None
        # The same history under another name, where the searches came before the login.
        await post(
            one,
            view("w", 0, "i1"),
            view("w", 1, "i2"),
            *(search("", at, query, user_id=None, session_id="s") for at, query in ((1, "tea 3"), (3, "green tea"))),
        )
        assert await listed(one, "w") == await listed(one, "u")
        merged = await two.client.post("/sessions/merge", json={"session_id": "s", "user_id": "w"})
        assert merged.json()["merged"] == 2
        assert await listed(two, "w") == first[0]
        assert (await one.client.delete("/users/v")).status_code == 200
        assert (await one.client.get("/users/v")).status_code == 404
        assert await listed(two, "v") == await listed(two, "nobody")


@asynchronous
async def test_a_history_of_searches_alone_has_a_list_of_its_own_and_stays_within_its_bound(
    engine: Engine, shared_valkey: Valkey
) -> None:
    prefix = f"alone:{uuid.uuid4().hex}:"
    async with serving(
        cast("FakeEngine", engine), redis_url=shared_valkey.url, prefix=prefix, deadline_ms=30_000.0,
        history_searches=True, operator=True,
    ) as service:  # fmt: skip
        nobody = await listed(service, "nobody")
        await post(service, search("u", 0, "tea"))
        assert await listed(service, "u") != nobody
        await post(service, *(search("u", 1 + n, f"{n} " + "x" * 500) for n in range(20)))
        stored = (await service.client.get("/users/u")).json()
        assert len(stored["history"]) == 12 and all(len(event["query"]) <= 200 for event in stored["history"])
        assert stored["seen_before"] == [], "a search has no item that could have been seen"
        assert len(await listed(service, "u")) == K


@asynchronous
async def test_models_that_read_no_queries_list_as_if_nobody_had_searched(
    random_artifact: Path, shared_valkey: Valkey
) -> None:
    prefix = f"unread:{uuid.uuid4().hex}:"
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    async with serving(
        cast("FakeEngine", engine), redis_url=shared_valkey.url, prefix=prefix, deadline_ms=30_000.0,
        history_searches=True, history_cap=64,
    ) as service:  # fmt: skip
        for n in range(4):
            await post(
                service, view("u", 2 * n, f"i{n}"), view("v", 2 * n, f"i{n}"), search("v", 2 * n + 1, f"tea {n}")
            )
            for _ in range(2):
                assert await listed(service, "v") == await listed(service, "u")
                await service.settled()
        await post(service, search("x", 0, "tea"))
        assert await listed(service, "x") == await listed(service, "nobody")
        await service.settled()
        await post(service, view("x", 10, "i1"))
        await post(service, view("y", 10, "i1"))
        assert await listed(service, "x") == await listed(service, "y")
