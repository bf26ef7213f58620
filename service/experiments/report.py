"""What an experiment has found so far, as operators read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.coordination.clock import iso
from service.experiments.counts import ArmCounts
from service.experiments.document import Experiment
from service.experiments.sequential import compare, share_mismatch
from service.experiments.shadow_counts import told

_NO_COUNTS = ArmCounts()


def report(
    experiment: Experiment,
    counts: Mapping[str, ArmCounts] | None,
    breakers: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the report of an experiment.

    Args:
        experiment: The experiment.
        counts: What its arms have earned; None while Redis is away.
        breakers: The breaker and the budgets of each arm in this process.
    """
    known = counts or {}
    first = known.get(experiment.arms[0].name, _NO_COUNTS)
    arms = [
        {
            **_arm(experiment, index, known.get(arm.name, _NO_COUNTS), first),
            "breaker": (breakers or {}).get(arm.name) if experiment.running else None,
        }
        for index, arm in enumerate(experiment.arms)
    ]
    subjects = [known.get(arm.name, _NO_COUNTS).sums.subjects for arm in experiment.arms]
    shadow = experiment.kind == "shadow"
    # One arm has all of them, whatever happens.
    check = None if shadow else share_mismatch(subjects, [arm.share for arm in experiment.arms])
    ended = experiment.ended_at_ms
    return {
        "name": experiment.name,
        "kind": experiment.kind,
        "layer": experiment.layer,
        "run": experiment.run,
        "state": experiment.state,
        "cause": experiment.cause,
        "share": experiment.share if shadow else (experiment.buckets[1] - experiment.buckets[0]) / 10_000,
        "step": experiment.step + 1,
        "steps": list(experiment.steps),
        "portion": experiment.portion,
        "started_at": iso(experiment.started_at_ms / 1000),
        "ended_at": None if ended is None else iso(ended / 1000),
        "counted": counts is not None,
        "arms": arms,
        "shares_p": 1.0 if check is None else check.p,
        "shares_mismatch": check is not None and check.mismatch,
        "shadow": told(first.shadow) if shadow else None,
    }


def _arm(experiment: Experiment, index: int, counts: ArmCounts, control: ArmCounts) -> dict[str, Any]:
    arm, sums = experiment.arms[index], counts.sums
    told: dict[str, Any] = {
        "name": arm.name,
        "share": arm.share,
        "model": arm.model,
        "policies": None if arm.policies is None else list(arm.policies.names),
        "ranker": arm.ranker,
        "answers": counts.answers,
        "late": counts.late,
        "failed": counts.failed,
        "below": counts.below,
        "subjects": sums.subjects,
        "lists": sums.lists,
        "clicked": sums.clicked,
        "click_through": sums.rate if sums.lists else None,
        "comparison": None,
    }
    if index:
        found = compare(control.sums, sums)
        told["comparison"] = {
            "lift": found.lift,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "power": found.power,
            "effect": found.effect,
            "least_effect": found.least_effect,
        }
    return told
