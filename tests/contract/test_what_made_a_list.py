"""Source, rung and strategy say what made a list: in the answer, the metrics, the console and the log line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from service.common.request_context import RequestContext
from service.engine.factory import open_engine
from service.guard.guard import MODEL_RUNGS
from service.ops.recent_traffic import RecentTraffic, row
from service.schemas.list_answers import RecommendAnswer
from service.schemas.recommend_request import RecommendRequest
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving

OWN = {"model": "gpt4rec", "item_cf": "item_cf", "popularity": "popular", "repeat": "repeat", "fused": "item_cf"}
LATE_S = 30.0


@pytest.fixture(scope="module", params=list(OWN))
def served(request: pytest.FixtureRequest) -> tuple[str, Any]:
    name = str(request.param)
    if name == "model":
        return name, FakeEngine()
    artifact: Path = request.getfixturevalue("tiny_baseline")(name)
    return name, open_engine(artifact, device="cpu")


def expected(name: str, rung: str) -> dict[str, str | None]:
    """Who makes the list of a rung, and how; reasons are those of `_asked`."""
    reasons = {"full": None, "narrow": "state_unavailable", "item_cf": "forced", "popular": "deadline"}
    strategies = {"full": "beam", "narrow": "greedy"} if name == "model" else {}
    source = OWN[name] if rung in MODEL_RUNGS else rung
    return {"source": source, "rung": rung, "reason": reasons[rung], "strategy": strategies.get(rung)}


async def _force(service: Service, mode: str) -> None:
    answer = await service.client.put("/ops/fallback", json={"mode": mode, "reason": "test"})
    assert answer.status_code == 200


async def _asked(service: Service, rung: str, item: str) -> tuple[dict[str, Any], RequestContext]:
    """An answer from a rung. Redis is away, so a stored history cannot be read."""
    body: dict[str, Any] = {
        "events": [{"item_id": item}],
        "k": 3,
        "exclude_seen": False,
        "decoding": {"strategy": "beam"},
    }
    if rung == "narrow":
        body["user_id"] = "u"
    now = time.monotonic()
    began = now - LATE_S if rung == "popular" else now
    context = RequestContext("id", began, now, time.monotonic)
    await _force(service, "fallback" if rung == "item_cf" else "auto")
    recommender = service.runtime.space.recommender
    return await recommender.recommend(RecommendRequest.model_validate(body), context), context


def ranked_by(name: str, rung: str, engine: Any) -> list[str]:
    """The signals that rank a list: those of the artefact with a weight."""
    if rung == "popular" or (name == "popularity" and rung in MODEL_RUNGS):
        return ["popularity"]
    if name == "repeat" and rung in MODEL_RUNGS:
        return [name]
    weights = engine.artifact.ranker.without_network
    if name == "model" and rung in MODEL_RUNGS:
        return ["path", "dense"]
    return [signal for signal in engine.artifact.ranker.signals if weights.get(signal)]


def _said(of: Mapping[str, Any]) -> dict[str, Any]:
    return {name: of[name] or None for name in ("source", "rung", "reason", "strategy")}


@asynchronous
async def test_every_place_names_what_made_the_list_of_every_rung(served: tuple[str, Any]) -> None:
    name, engine = served
    item = engine.artifact.catalogue.item_ids[1]
    async with serving(cast("FakeEngine", engine), deadline_ms=20_000.0, operator=True) as service:
        metrics, guard = service.runtime.metrics, service.runtime.space.guard
        recent, rungs = RecentTraffic(metrics), ("full", "narrow", "item_cf", "popular")
        for rung in rungs:
            answer, context = await _asked(service, rung, item)
            RecommendAnswer.model_validate(answer)
            assert _said(answer) == _said(context.facts) == expected(name, rung)
            assert answer["degraded"] == (rung != "full")
            assert answer["scorers"] == ranked_by(name, rung, engine)
            assert context.source == answer["source"]
        counted = [
            _said(sample.labels)
            for family in metrics.recommendations.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        ]
        assert counted == [expected(name, rung) for rung in rungs]
        recent.note()
        drawn = row(recent.seconds()[-1])
        assert drawn["rung"] == dict.fromkeys(rungs, 1)
        sources = [expected(name, rung)["source"] for rung in rungs]
        assert drawn["source"] == {source: sources.count(source) for source in sources}
        # Of four lists, one was forced and one came from below the artefact's own.
        below = guard.status()["budgets"]["burn_rate"]["served"]["1m"] * 0.05
        assert below == pytest.approx(1 / 3, abs=0.01)


@asynchronous
async def test_a_list_that_a_filter_leaves_nothing_of_has_the_source_of_what_is_served(served: tuple[str, Any]) -> None:
    name, engine = served
    async with serving(cast("FakeEngine", engine)) as service:
        answer = await service.recommend(
            events=[{"item_id": engine.artifact.catalogue.item_ids[1]}], filter={"category": ["none has this"]}
        )
    assert (answer["items"], answer["rung"], answer["reason"]) == ([], "full", "not_enough_items")
    assert answer["source"] == OWN[name]
    assert (answer["strategy"] is None) == (name != "model")
