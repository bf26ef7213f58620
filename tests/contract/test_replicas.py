"""Whatever happens to a history, both replicas say of it what a full encode of the raw log says."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.engine.decoding import STRATEGIES, Decoding, Strategy
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.history import state_blob
from service.history.profile import Profile
from service.store.records import Subject, UserRecord
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.artifacts import random_parts, write_artifact
from tests.support.fakes import FakeEngine
from tests.support.networks import random_network
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
K = 6
# A key stored in float16 may round the other way where two computations differ in the last bit.
TOLERANCE = {"float32": 2e-4, "float16": 2e-2}

# In one step, as when a server comes back: no state can be written in between.
RESTORE = """
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end
for i = 2, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end
"""

event = st.tuples(
    st.integers(0, 45),  # beyond the catalogue of 40 as well
    st.one_of(st.integers(0, 3_600_000), st.integers(0, 3)),  # late ones and ties
    st.one_of(st.none(), st.sampled_from(["e1", "e2", "e3"])),
)
replica = st.integers(0, 1)
events = st.tuples(st.just("events"), replica, st.lists(event, min_size=1, max_size=12))
recommend = st.tuples(st.just("recommend"), replica, st.tuples(st.sampled_from(STRATEGIES), st.integers(0, 99)))
rare = st.tuples(st.sampled_from(["settle", "erase", "backup", "restore"]), replica, st.none())
# Mostly events and lists, so that histories grow and states are extended, between the accidents.
turn = st.tuples(events, recommend, st.one_of(st.none(), events, recommend, rare))


@dataclass
class Deployment:
    """Two replicas on one store, an engine of our own as the reference, and copies of the user's keys."""

    replicas: Sequence[Service]
    reference: Engine
    store: Store
    user: Subject = field(default_factory=lambda: Subject("user", uuid.uuid4().hex))
    copies: dict[bytes, bytes] = field(default_factory=dict)

    async def play(self, name: str, replica: int, what: Any) -> None:
        service = self.replicas[replica]
        match name:
            case "events":
                await self.post(service, what)
            case "recommend":
                await self.check(service, *what)
            case "settle":
                await service.settled()
            case "erase":
                assert (await service.client.delete(f"/users/{self.user.id}")).status_code == 200
            case "backup":
                self.copies = {key: await self.command("DUMP", key) for key in await self.keys()}
            case "restore":  # what a Redis that came back from an older file looks like
                copies = [part for key, copy in self.copies.items() for part in (key, copy)]
                await self.command("EVAL", RESTORE, 0, self.pattern, *copies)

    @property
    def pattern(self) -> str:
        return f"{self.store.settings.prefix}{self.user.tag}*"

    async def post(self, service: Service, events: Sequence[tuple[int, int, str | None]]) -> None:
        body = [
            {"user_id": self.user.id, "item_id": f"i{item}", "type": "view", "timestamp": T + offset}
            | ({} if name is None else {"event_id": name})
            for item, offset, name in events
        ]
        answer = await service.client.post("/events", json={"events": body})
        assert answer.status_code == 200, answer.text

    async def check(self, service: Service, strategy: Strategy, seed: int) -> None:
        record = await self.store.read(self.user, self.reference.artifact.encoder_version.name)
        override = {"strategy": strategy, "beam_width": 3}
        answer = await service.recommend(user_id=self.user.id, k=K, seed=seed, decoding=override)
        assert (answer["rung"], answer["reason"]) == ("full", None)
        expected = self.expected(
            record, service, Decoding(strategy, 3, 0.9, 1.2 if strategy == "temperature" else 1.0), seed
        )
        scores = {f"i{item}": score for item, score in zip(expected.items, expected.scores, strict=True)}
        dtype = self.reference.artifact.network["state_dtype"]
        got = [item["score"] for item in answer["items"]]
        assert len(got) == len(scores)
        if dtype == "float32":
            assert [item["item_id"] for item in answer["items"]] == list(scores)
        np.testing.assert_allclose(got, list(scores.values()), atol=TOLERANCE[dtype] * 10, rtol=1e-3)

    def expected(self, record: UserRecord, service: Service, decoding: Decoding, seed: int) -> DecodedList:
        model = service.runtime.space.model
        history = Profile(self.user, model, record).history
        seen = np.unique(model.indices([*history.item_ids, *record.seen.item_ids()]))
        gap = model.vocabulary.context.gap(history.last_ms, service.runtime.now_ms())
        context = model.vocabulary.context.encode({})
        request = ListRequest(context=context, gap_ms=gap, decoding=decoding, k=K, excluded=seen, seed=seed)
        job = DecodeJob(h=self.encode(record, service).h, request=request)
        listed = self.reference.decode([job])[0]
        assert isinstance(listed, DecodedList), listed
        return listed

    def encode(self, record: UserRecord, service: Service) -> EncoderState:
        """The state after the whole log, in one go."""
        history = Profile(self.user, service.runtime.space.model, record).history
        start = max(0, len(history) - self.reference.receptive_field)
        trimmed = start > 0 or len(history) >= self.store.settings.history_cap
        events = service.runtime.space.model.vocabulary.events(
            history.item_ids[start:], history.types[start:], history.times_ms[start:]
        )
        state = self.reference.encode([EncodeJob(events=events, from_start=not trimmed)])[0]
        assert isinstance(state, EncoderState), state
        return state

    async def check_stored(self) -> None:
        """Once all is quiet, what is stored is what a full encode gives."""
        for service in self.replicas:
            await self.check(service, "beam", 0)
        for service in self.replicas:
            await service.settled()
        record = await self.store.read(self.user, self.reference.artifact.encoder_version.name)
        base = state_blob.unpack(record.blob, self.reference.state_layout)
        if base is None:
            assert not record.events
            return
        assert base.version == record.version
        tolerance = TOLERANCE[self.reference.artifact.network["state_dtype"]]
        np.testing.assert_allclose(base.h, self.encode(record, self.replicas[0]).h, atol=tolerance, rtol=1e-3)

    async def keys(self) -> list[bytes]:
        found: list[bytes] = await self.command("KEYS", self.pattern)
        return found

    async def command(self, *args: Any) -> Any:
        return await self.store._link.command(*args, timeout_s=5)


@pytest.mark.parametrize(
    ("encoder", "dtype", "kept"),
    [
        ("gpt4rec", "float32", "full"), ("gpt4rec", "float16", "full"), ("gpt4rec", "float32", "h_only"),
        ("bert4rec", "float32", "full"),
    ],
)  # fmt: skip
def test_streaming_state_equals_full_encode_on_every_replica(
    tmp_path: Path, shared_valkey: Valkey, encoder: str, dtype: str, kept: str
) -> None:
    """Also where there is no state but the hidden one, and each event encodes the history anew."""
    artifact = write_artifact(tmp_path, random_parts(random_network(encoder=encoder, state_dtype=dtype)))
    prefix = f"r{uuid.uuid4().hex}:"
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        engines = [Engine.open(artifact, device="cpu", threads=1) for _ in range(3)]
        config = StoreSettings(
            url=shared_valkey.url, prefix=prefix, history_cap=engines[0].receptive_field, read_timeout_ms=5000,
            write_timeout_ms=5000,
        )  # fmt: skip

        async def start() -> tuple[list[Service], Store]:
            stores = [Store(config) for _ in range(3)]
            for store in stores:
                stack.push_async_callback(store.close)
            options: dict[str, Any] = {"operator": True, "history_cap": config.history_cap, "state": kept}
            contexts = [
                serving(cast("FakeEngine", engine), store, **options)
                for engine, store in zip(engines[:2], stores[:2], strict=True)
            ]
            return [await stack.enter_async_context(context) for context in contexts], stores[2]

        replicas, store = runner.run(start())

        @settings(
            max_examples=25 if encoder == "gpt4rec" else 6, deadline=None, derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )  # fmt: skip
        @given(st.lists(turn, min_size=2, max_size=6))
        def holds(turns: list[tuple[Any, ...]]) -> None:
            deployment = Deployment(replicas, engines[2], store)

            async def play() -> None:
                for step in itertools.chain.from_iterable(turns):
                    if step is not None:
                        await deployment.play(*step)
                await deployment.check_stored()

            runner.run(play())

        try:
            holds()
        finally:
            runner.run(stack.aclose())
