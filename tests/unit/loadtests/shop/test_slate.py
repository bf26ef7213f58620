"""The order of lists on simulated users, in its short form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.shop import slate, slate_criteria
from loadtests.shop.slate_world import ABOVE, LEAVE, Shape, World

TINY = Shape(k=4, items=40, categories=4, situations=20, candidates=8, subjects=700, lists=4)


def test_looks_and_order_are_found_in_a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command decides too, which tests/unit/export/test_order.py tries.
    monkeypatch.setattr(slate, "_kept", lambda world: not world.plain)
    found = slate.measure(0, TINY, replace(TINY, subjects=300), judged=10)
    assert found.bias < 0.25
    assert found.by_score < found.clicks <= 1.0 and found.clicks > 0.95 and found.dwell > 0.95
    assert found.policy > 0.9
    assert found.kept and not found.kept_plain
    report = slate.report([found, replace(found, clicks=0.5)])
    of_generator = {slate_criteria.DPO, slate_criteria.GRPO, slate_criteria.LIKELIHOOD}
    assert set(report) == set(slate_criteria.LIMITS) - of_generator
    assert report[slate_criteria.CLICKS] == (50.0, "%")
    row = slate_criteria.row(slate_criteria.CLICKS, 50.0, "%", "command")
    assert row.holds is False and row.limit == "≥ 97"


def test_the_clicks_of_the_world_follow_its_truth() -> None:
    world = World(replace(TINY, subjects=6000, situations=1), 3)
    seen, _, order = world.shown()
    best = np.argsort(-world.score[0])[: TINY.k]
    same = (order == best).all(axis=1)
    assert same.sum() > 100
    clicks = seen.clicked[same].sum(axis=1)
    expected = world.earned(0, np.arange(TINY.k))
    assert abs(clicks.mean() - expected) < 4 * clicks.std() / np.sqrt(same.sum())
    assert world.best(0) >= expected
    assert (ABOVE, LEAVE) == (-0.5, 0.15)
