"""When an experiment goes on, lets more subjects in, or goes back; and what its report says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.cli.experiment_text import experiment_lines, planned_lines
from service.experiments.canary import exceeds, judge
from service.experiments.counts import ArmCounts
from service.experiments.document import Document, Experiment, ExperimentSpec
from service.experiments.report import report
from service.experiments.sequential import compare
from service.experiments.sums import Sums

GOOD, BAD = Sums(700, 1000, 200, 1900, 250, 330), Sums(700, 1000, 90, 1900, 120, 150)


def canary(**more: Any) -> Experiment:
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "model": "m2"}]
    fields = {"name": "one", "arms": arms, "steps": [0.1, 1.0], "step_lists": 100, "guardrails": {}, **more}
    return Document().started(ExperimentSpec.model_validate(fields), 0).experiments[0]


def test_the_next_step_needs_lists_of_every_arm() -> None:
    few = {"old": ArmCounts(500), "new": ArmCounts(99)}
    assert judge(canary(), few).action == "stay"
    enough = judge(canary(), {"old": ArmCounts(500), "new": ArmCounts(100)})
    assert (enough.action, enough.base) == ("advance", 100)
    later = canary().model_copy(update={"step": 1})
    assert judge(later, {"old": ArmCounts(5000), "new": ArmCounts(5000)}).action == "stay"


@pytest.mark.parametrize("rail", ["late", "failed", "below"])
def test_a_guardrail_breaks_by_the_excess_over_the_first_arm(rail: str) -> None:
    usual, bad = (ArmCounts.of({"answers": 1000, rail: n}) for n in (100, 250))
    back = judge(canary(), {"old": usual, "new": bad})
    assert back.action == "back"
    assert "250 of 1,000 answers of the arm new" in back.cause
    assert judge(canary(), {"old": usual, "new": usual}).action == "advance"
    assert judge(canary(guardrails=None, steps=[1.0]), {"old": usual, "new": bad}).action == "stay"


def test_fewer_clicks_end_it_unless_they_may() -> None:
    counts = {"old": ArmCounts(sums=GOOD), "new": ArmCounts(sums=BAD)}
    assert "click-through of the arm new" in judge(canary(), counts).cause
    assert judge(canary(guardrails={"click_through": False}), counts).action == "stay"


@pytest.mark.parametrize(("share", "tolerated"), [(0.2, 0.01), (0.1, 0.02)])
def test_arms_of_one_share_are_rarely_returned_and_all_failures_soon_are(share: float, tolerated: float) -> None:
    """Both arms are drawn: the control's share is not known either."""
    rng = np.random.default_rng(19)
    wrong = 0
    for _ in range(150):
        bad = np.cumsum(rng.random((2, 3000)) < share, axis=1)[:, 9::20]
        totals = range(10, 3001, 20)
        wrong += any(
            exceeds((one, n), (usual, n), tolerated) for one, usual, n in zip(*bad.tolist(), totals, strict=True)
        )
    assert wrong <= 2  # 1 % of 150, rounded up


def test_a_share_exactly_at_the_limit_is_rarely_exceeded() -> None:
    rng = np.random.default_rng(20)
    wrong = 0
    for _ in range(150):
        bad, usual = (np.cumsum(rng.random(2000) < p)[9::20].tolist() for p in (0.10, 0.05))
        wrong += any(
            exceeds((one, n), (other, n), 0.05) for one, other, n in zip(bad, usual, range(10, 2001, 20), strict=True)
        )
    assert wrong <= 2


def test_an_arm_whose_every_answer_fails_is_returned_after_a_handful() -> None:
    assert not exceeds((2, 2), (0, 2), 0.01)
    assert exceeds((6, 6), (0, 6), 0.01)
    assert not exceeds((6, 6), (0, 0), 0.01)
    assert not exceeds((6, 6), (6, 6), 0.01)


def test_clicks_are_judged_at_the_error_of_every_guardrail() -> None:
    arm = next(one for c in range(199, 90, -1) if compare(GOOD, one := replace(BAD, clicked=c)).worse)
    counts = {"old": ArmCounts(sums=GOOD), "new": ArmCounts(sums=arm)}
    assert not compare(GOOD, arm, alpha=0.01).worse
    assert judge(canary(), counts).action == "stay"


def test_the_report_is_put_in_words() -> None:
    counts = {"old": ArmCounts(1000, sums=GOOD), "new": ArmCounts(990, 3, 2, 1, sums=BAD)}
    told = report(canary(), counts)
    assert (told["arms"][0]["comparison"], told["shares_mismatch"]) == (None, False)
    lines = "\n".join(experiment_lines(told))
    assert "one is running." in lines
    assert "3 / 2 / 1" in lines
    assert "-55.0% (" in lines
    alone = report(canary(), None)
    assert not alone["counted"]
    assert "Redis is unavailable: nothing is counted." in experiment_lines(alone)
    uneven = report(canary(), {"old": counts["old"], "new": ArmCounts(sums=Sums(300, 500, 90, 900, 120, 150))})
    assert uneven["shares_mismatch"]
    assert "believe nothing of this report" in "\n".join(experiment_lines(uneven))
    planned = {"would": ["start it"], "memory": {"held_mib": 1.5, "limit_mib": 10.0}, "refused": ["m2: too large"]}
    assert planned_lines(planned) == [
        "This would", "  - start it", "Held now: 1.5 of 10 MiB.", "It would be refused: m2: too large",
    ]  # fmt: skip
