"""`candidates` of `/recommend`: all that may be listed are ranked, on every rung, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from service.schemas.list_answers import RecommendAnswer
from tests.support.aio import asynchronous
from tests.support.fakes import CATEGORIES, N_ITEMS, FakeEngine
from tests.support.processes import ids
from tests.support.serving import serving

HISTORY = [{"item_id": "3", "timestamp": 1_700_000_000_000}]
BROKEN = ("full", "narrow", "item_cf")


@given(
    rung=st.sampled_from(BROKEN),
    named=st.lists(st.integers(0, N_ITEMS + 5).map(str), min_size=1, max_size=60),
    exclude=st.lists(st.integers(0, N_ITEMS + 5).map(str), max_size=10),
    categories=st.none() | st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=3),
    gone=st.frozensets(st.integers(0, N_ITEMS - 1), max_size=10),
    k=st.none() | st.integers(1, 20),
)
@settings(max_examples=12, deadline=None)
@asynchronous
async def test_all_that_may_be_listed_are_ranked_and_nothing_else(
    rung: str, named: list[str], exclude: list[str], categories: list[str] | None, gone: frozenset[int], k: int | None
) -> None:
    engine = FakeEngine(gone)
    engine.fail_full_width, engine.fail_jobs = rung == "narrow", rung == "item_cf"
    body: dict[str, Any] = {"events": HISTORY, "candidates": named, "exclude": exclude, "exclude_seen": True}
    body |= {} if categories is None else {"filter": {"category": categories}}
    body |= {} if k is None else {"k": k}
    async with serving(engine) as service:
        answer = await service.recommend(**body)
    RecommendAnswer.model_validate(answer)
    known = {str(i): CATEGORIES[i % len(CATEGORIES)] for i in range(N_ITEMS) if i not in gone}
    allowed = {
        one
        for one in named
        if one in known and one not in exclude and one != "3" and (categories is None or known[one] in categories)
    }
    found = ids(answer)
    assert len(found) == len(set(found)) == min(len(allowed), k or len(allowed))
    assert set(found) <= allowed
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    unknown = [one for one in named if int(one) >= N_ITEMS]
    said = [text for text in answer["warnings"] if "these ids of candidates" in text]
    assert bool(said) == bool(unknown) and all(unknown[0] in text for text in said)


@asynchronous
async def test_the_model_ranks_them_as_it_ranks_the_catalogue(random_artifact: Path) -> None:
    engine = Engine(Artifact.open(random_artifact), device="cpu")
    history = [{"item_id": "i3", "timestamp": 1_700_000_000_000}]
    try:
        async with serving(cast("Any", engine)) as service:
            beam = {"strategy": "beam", "beam_width": 16}
            whole = await service.recommend(events=history, k=8, decoding=beam)
            named = ids(whole)[::-1]
            answer = await service.recommend(events=history, candidates=named, explain=True)
            drawn = await service.recommend(events=history, candidates=named, decoding={"strategy": "temperature"})
            alone = await service.recommend(events=history, candidates=["no such item"])
    finally:
        engine.close()
    assert (answer["source"], answer["rung"], answer["strategy"], answer["segment"]) == (
        "gpt4rec", "full", "greedy", whole["segment"],
    )  # fmt: skip
    assert ids(answer) == ids(whole) == ids(drawn)
    assert all(item["because"]["contributions"] for item in answer["items"])
    assert any("decoding has no effect" in text for text in drawn["warnings"])
    assert (alone["items"], alone["reason"]) == ([], "not_enough_items")


@pytest.mark.parametrize("named", [[], ["x"] * 501, [""], "x", [1]])
@asynchronous
async def test_too_many_and_no_candidates_are_refused(named: Any) -> None:
    async with serving() as service:
        answer = await service.client.post("/recommend", json={"user_id": "u", "candidates": named})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"][0] == "candidates"
