"""What rules made of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

RuleResult = Literal["held", "bit", "not_kept"]
RULE_RESULTS: tuple[RuleResult, ...] = get_args(RuleResult)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What became of one rule in one list.

    Attributes:
        name: Its name.
        label: Its name in metrics.
        result: `held`: the list keeps it and would have without it. `bit`: it changed the list, which keeps it.
            `not_kept`: the list does not keep it.
        cost: Score that the list gave up for it, in units of the list's source.
    """

    name: str
    label: str
    result: RuleResult
    cost: float = 0.0
