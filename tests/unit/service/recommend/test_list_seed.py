"""The seed of a sampled list: what it follows from, and what makes no difference to it."""

from __future__ import annotations

from typing import Any

from service.common.request_context import RequestContext
from service.recommend.list_seed import list_seed
from service.schemas.recommend_request import RecommendRequest
from service.store.records import Subject

HOUR_MS = 3_600_000
USER = Subject("user", "u")


def seed(
    request_id: str = "r", subject: Subject | None = USER, version: str = "v1", now_ms: int = 10 * HOUR_MS, **body: Any
) -> int:
    request = RecommendRequest.model_validate({"user_id": "u", **body})
    return list_seed(request, RequestContext(request_id, 0.0, 0.0, lambda: 0.0), subject, version, now_ms)


def test_the_same_question_has_the_same_seed_until_history_or_hour_change() -> None:
    base = seed()
    assert seed(request_id="other") == base == seed(now_ms=11 * HOUR_MS - 1)
    assert seed(k=50, scene="home", exclude=["1"]) == base, "a longer list begins like the short one"
    others = [
        seed(version="v2"),
        seed(now_ms=11 * HOUR_MS),
        seed(subject=Subject("session", "u")),
        seed(subject=None),
        seed(subject=None, request_id="other"),
        seed(events=[{"item_id": "1"}]),
        seed(events=[{"item_id": "1", "type": "click"}]),
        seed(events=[{"item_id": "2"}]),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_without_a_subject_each_request_draws_by_itself() -> None:
    assert seed(subject=None, request_id="a") == seed(subject=None, request_id="a")
    assert len({seed(subject=None, request_id=f"r{n}") for n in range(1000)}) == 1000


def test_a_seed_of_the_caller_counts_first_and_fresh_follows_from_the_request() -> None:
    assert seed(seed=7) == 7
    assert seed(seed="fresh") == seed(seed="fresh", version="v2") != seed(seed="fresh", request_id="other")
    assert 0 <= seed() < 2**63 > seed(seed="fresh") >= 0
