"""Whether an experiment goes on, lets more subjects in, or goes back. Pure.

A share that must not be exceeded is tested like everything here: at any time, as often as anybody likes. So an arm
that does no harm is ever returned with a probability of 1 % for each guardrail at most, and one whose every answer
fails after a handful of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.experiments.counts import ArmCounts
from service.experiments.document import Experiment
from service.experiments.sequential import compare, share_mismatch

_ALPHA = 0.01
# A weak prior: a share far above the limit must show after a few answers, not one slightly above it.
_PRIOR = 50.0
_NO_COUNTS = ArmCounts()
# What the guardrails are called where they break.
_WORDS = {"late": "late", "failed": "failed", "below": "from below the model"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the counts.

    Attributes:
        action: What to do.
        cause: Why it goes back, in a sentence; empty otherwise.
        base: Answers of the arm with the fewest, for the next step.
    """

    action: Literal["stay", "advance", "back"]
    cause: str = ""
    base: int = 0


def judge(experiment: Experiment, counts: Mapping[str, ArmCounts]) -> Verdict:
    """Judges an experiment by what its arms have earned so far.

    Args:
        experiment: The experiment; one without guardrails always stays.
        counts: By arm.
    """
    if experiment.guardrails is None:
        return Verdict("stay")
    first, *others = experiment.arms
    control = counts.get(first.name, _NO_COUNTS)
    for arm in others:
        cause = _broken(experiment, arm.name, control, counts.get(arm.name, _NO_COUNTS))
        if cause is not None:
            return Verdict("back", cause)
    fewest = min(counts.get(arm.name, _NO_COUNTS).answers for arm in experiment.arms)
    grown = experiment.step + 1 < len(experiment.steps) and fewest - experiment.step_base >= experiment.step_lists
    return Verdict("advance" if grown else "stay", base=fewest)


def exceeds(bad: int, total: int, share: float) -> bool:
    """Returns whether more than a share is bad, by a test that may be looked at at any time.

    Args:
        bad: Bad ones.
        total: All of them.
        share: The share, above 0 and below 1.
    """
    if bad <= total * share:
        return False
    return share_mismatch([bad, total - bad], [share, 1.0 - share], alpha=_ALPHA, prior=_PRIOR).mismatch


def _broken(experiment: Experiment, name: str, control: ArmCounts, arm: ArmCounts) -> str | None:
    """The first guardrail that an arm breaks, in a sentence; None if it breaks none."""
    rails = experiment.guardrails
    assert rails is not None  # noqa: S101 - judged only with guardrails
    for rail, words in _WORDS.items():
        bad, tolerated = getattr(arm, rail), getattr(rails, rail)
        usual = getattr(control, rail) / control.answers if control.answers else 0.0
        limit = min(max(usual + tolerated, 1e-4), 1.0 - 1e-4)
        if exceeds(min(bad, arm.answers), arm.answers, limit):
            return (
                f"{bad:,} of {arm.answers:,} answers of the arm {name} were {words} ({bad / arm.answers:.1%}); "
                f"{limit:.1%} are tolerated"
            )
    found = compare(control.sums, arm.sums)
    if rails.click_through and found.worse:
        lift, high = found.lift or 0.0, found.high or 0.0
        return f"the click-through of the arm {name} is {-lift:.1%} below that of the first one, {-high:.1%} at least"
    return None
