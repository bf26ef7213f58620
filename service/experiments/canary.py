"""Whether an experiment goes on, lets more subjects in, or goes back. Pure.

Guardrails are tested like everything here: at any time, as often as anybody likes, with both arms as the samples that
they are. So an arm that is within what is tolerated is ever returned with a probability of 1 % for each guardrail at
most, and one whose every answer fails after a handful of them beside a control whose answers do not.

The evidence that the share p of an arm exceeds the share q of the control by more than is tolerated is the likelihood
of both arms under a mixture (Jeffreys' prior for each), over the largest under p ≤ q + tolerated. That ratio ever
reaches 1 ÷ α with a probability of α at most (Wasserman, Ramdas and Balakrishnan, "Universal inference", PNAS 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.experiments.counts import ArmCounts
from service.experiments.document import Experiment
from service.experiments.sequential import compare

_ALPHA = 0.01
# Halvings of the range of a share, which is then known to 1e-12.
_HALVINGS = 40
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


def exceeds(arm: tuple[int, int], control: tuple[int, int], tolerated: float) -> bool:
    """Returns whether an arm has more bad answers than is tolerated, by a test that may be looked at at any time.

    Args:
        arm: Its bad answers, and all of them.
        control: Those of the control; without any nothing is known of the arm either.
        tolerated: By how much its share may exceed that of the control, from 0 on.
    """
    (bad, total), (usual, usual_total) = arm, control
    if not total or not usual_total or bad / total <= usual / usual_total + tolerated or tolerated >= 1.0:
        return False
    # Both likelihoods are concave, so their product rises up to its one peak on the line p = q + tolerated.
    low, high = 0.0, 1.0 - tolerated
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        slope = _slope(usual, usual_total, middle) + _slope(bad, total, middle + tolerated)
        low, high = (middle, high) if slope > 0.0 else (low, middle)
    share = (low + high) / 2.0
    largest = _log_likelihood(usual, usual_total, share) + _log_likelihood(bad, total, share + tolerated)
    return _log_mixture(usual, usual_total) + _log_mixture(bad, total) - largest >= -math.log(_ALPHA)


def _slope(bad: int, total: int, share: float) -> float:
    return (bad / share if bad else 0.0) - ((total - bad) / (1.0 - share) if total > bad else 0.0)


def _log_likelihood(bad: int, total: int, share: float) -> float:
    return (bad * math.log(share) if bad else 0.0) + ((total - bad) * math.log1p(-share) if total > bad else 0.0)


def _log_mixture(bad: int, total: int) -> float:
    """The logarithm of the likelihood under Jeffreys' prior, Beta(½, ½)."""
    return math.lgamma(bad + 0.5) + math.lgamma(total - bad + 0.5) - math.lgamma(total + 1.0) - math.log(math.pi)


def _broken(experiment: Experiment, name: str, control: ArmCounts, arm: ArmCounts) -> str | None:
    """The first guardrail that an arm breaks, in a sentence; None if it breaks none."""
    rails = experiment.guardrails
    assert rails is not None  # noqa: S101 - judged only with guardrails
    for rail, words in _WORDS.items():
        bad, tolerated = getattr(arm, rail), getattr(rails, rail)
        usual = min(getattr(control, rail), control.answers)
        if exceeds((min(bad, arm.answers), arm.answers), (usual, control.answers), tolerated):
            return (
                f"{bad:,} of {arm.answers:,} answers of the arm {name} were {words} ({bad / arm.answers:.1%}); "
                f"{usual / control.answers:.1%} of the first one, and {tolerated:.1%} more are tolerated"
            )
    found = compare(control.sums, arm.sums, alpha=_ALPHA)
    if rails.click_through and found.worse:
        lift, high = found.lift or 0.0, found.high or 0.0
        return f"the click-through of the arm {name} is {-lift:.1%} below that of the first one, {-high:.1%} at least"
    return None
