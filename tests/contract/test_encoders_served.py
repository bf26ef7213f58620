"""An artefact is served alike whether its encoder carries a state from event to event or encodes histories whole."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from model.data.dataset import Dataset, sequences
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import engine_ranker
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from tests.support.aio import asynchronous
from tests.support.artifacts import random_parts, write_artifact
from tests.support.fakes import FakeEngine
from tests.support.networks import random_network
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

ENCODERS = ("gpt4rec", "bert4rec")
START_MS = 1_500_000_000_000  # so long ago that the gap to now is unknown, as in the evaluation
BEAM: dict[str, Any] = {"strategy": "beam", "beam_width": 5}
K = 6


@pytest.fixture(scope="module", params=ENCODERS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    network = random_network(encoder=request.param, window=8)
    return Engine.open(write_artifact(tmp_path_factory.mktemp("a"), random_parts(network)), device="cpu", threads=1)


def evaluators_list(engine: Engine, items: list[str]) -> list[str]:
    """What the evaluation makes of a user who has viewed the items one second after the other."""
    n = len(items)
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * n, "item_id": items, "timestamp": [START_MS + 1000 * i for i in range(n)],
            "event_type": ["view"] * n, "value": [None] * n, "session_id": [None] * n,
        }
    )  # fmt: skip
    known = list(engine.artifact.catalogue.item_ids)
    dataset = Dataset.of(
        "log", frame, pl.DataFrame({"item_id": known}), pl.DataFrame({"user_id": ["u"]}), has_time=True
    )
    log = sequences(dataset)
    assert list(log.item_ids) == known
    found = engine_ranker(engine, Decoding("beam"), K)(Histories(np.array([0]), np.array([n]), log))[0]
    return [known[index] for index in found[:K]]


def ids(answer: dict[str, Any]) -> list[str]:
    assert (answer["rung"], answer["reason"]) == ("full", None)
    return [item["item_id"] for item in answer["items"]]


async def listed(service: Service, user: str) -> list[str]:
    return ids(await service.recommend(user_id=user, k=K, decoding=BEAM))


@asynchronous
async def test_the_served_list_is_the_evaluators_after_every_event(engine: Engine, shared_valkey: Valkey) -> None:
    """Acknowledged events are in it at once, also beyond what the encoder reads."""
    items = [f"i{(7 * n) % 40}" for n in range(20)]
    prefix = f"served:{uuid.uuid4().hex}:"
    async with serving(
        cast("FakeEngine", engine), redis_url=shared_valkey.url, prefix=prefix, history_cap=64, deadline_ms=30_000.0
    ) as service:
        assert len(await listed(service, "nobody")) == K
        for upto in (1, 2, 3, 9, 19, 20):
            done = {1: 0, 2: 1, 3: 2, 9: 3, 19: 9, 20: 19}[upto]
            await service.post_events("u", *items[done:upto], start_ms=START_MS + 1000 * done)
            assert await listed(service, "u") == evaluators_list(engine, items[:upto])
            await service.settled()  # the next one starts from what is stored
            assert await listed(service, "u") == evaluators_list(engine, items[:upto])


@asynchronous
async def test_the_events_of_a_request_count_without_being_stored(engine: Engine, shared_valkey: Valkey) -> None:
    prefix = f"inline:{uuid.uuid4().hex}:"
    async with serving(
        cast("FakeEngine", engine), redis_url=shared_valkey.url, prefix=prefix, history_cap=64, deadline_ms=30_000.0
    ) as service:
        await service.post_events("u", "i1", "i2", start_ms=START_MS)
        more = [{"item_id": "i3", "type": "view", "timestamp": START_MS + 2000}]
        answer = await service.recommend(user_id="u", k=K, decoding=BEAM, events=more)
        assert ids(answer) == evaluators_list(engine, ["i1", "i2", "i3"])
        assert await listed(service, "u") == evaluators_list(engine, ["i1", "i2"])


@pytest.mark.parametrize("encoder", ["prefix", "injected"])
@asynchronous
async def test_an_encoder_that_reads_features_encodes_anew_when_they_change(
    encoder: str, shared_valkey: Valkey, tmp_path: Path
) -> None:
    """Whether they are stored, or named by one request; and for somebody without a history, too."""
    network = random_network(encoder=encoder, window=8, n_fields=1, scale=1.0)
    engine = Engine.open(write_artifact(tmp_path, random_parts(network)), device="cpu", threads=1)
    started: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": f"reads:{uuid.uuid4().hex}:", "operator": True}
    patient: dict[str, Any] = {"history_cap": 64, "deadline_ms": 30_000.0}

    async def asked(service: Service, **body: Any) -> dict[str, float]:
        answer = await service.recommend(k=K, decoding=BEAM, **body)
        assert (answer["rung"], answer["reason"]) == ("full", None)
        return {item["item_id"]: round(item["score"], 3) for item in answer["items"]}

    async def put(service: Service, **features: str) -> None:
        answer = await service.client.put("/users/u/features", json={"features": features})
        assert answer.status_code == 200

    async with serving(cast("FakeEngine", engine), **started, **patient) as one:
        events = [{"item_id": f"i{n}", "type": "view", "timestamp": START_MS + 1000 * n} for n in range(5)]
        given = {age: await asked(one, events=events, features={"age": age}) for age in ("old", "young")}
        given[""] = await asked(one, events=events)
        assert len({str(scores) for scores in given.values()}) == 3
        new = [await asked(one, user_id="new", features=who) for who in ({"age": "old"}, {"age": "young"}, {})]
        assert len({str(scores) for scores in new}) == 3
        await one.post_events("u", *(f"i{n}" for n in range(5)), start_ms=START_MS)
        assert await asked(one, user_id="u", exclude_seen=True) == given[""]
        async with serving(cast("FakeEngine", engine), **started, **patient) as two:
            for age in ("old", "young", "old"):
                await put(one, age=age)
                for service in (one, two, one):
                    assert await asked(service, user_id="u") == given[age]
                    await service.settled()
                assert await asked(two, user_id="u", features={}) == given[""]
                other = "young" if age == "old" else "old"
                assert await asked(two, user_id="u", features={"age": other}) == given[other]
                assert await asked(two, user_id="u") == given[age]
