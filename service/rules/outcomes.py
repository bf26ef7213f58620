"""What became of each rule in a list, judged by the list itself."""

from __future__ import annotations

import numpy as np

from service.artifact.array_types import IntArray
from service.engine.rule_report import RuleOutcome, RuleResult
from service.rules.choice import Choice
from service.rules.compiled import CompiledRule
from service.rules.spec import Boost, Pin


def outcomes(choice: Choice, before: IntArray, after: IntArray, k: int) -> tuple[RuleOutcome, ...]:
    """Returns what became of each rule, in order of precedence.

    The cost of a list is what its scores, before boosts, add up to less than those of the list without rules; rules
    that changed the list share it evenly.

    Args:
        choice: The list, with the rules over what it was chosen from.
        before: Items of the list without rules.
        after: Items of the list.
        k: Number of items asked for.
    """
    pool = choice.pool
    place_of = {item: place for place, item in enumerate(pool.items.tolist())}
    old = [place_of[item] for item in before.tolist() if item in place_of]
    new = [place_of[item] for item in after.tolist() if item in place_of]
    mask = 0
    for passed in choice.selection.passed_over.values():
        mask |= passed
    moved = _moved(choice, k)
    results = [(one, _result(one, old, new, mask, k, moved=moved)) for one in choice.rules]
    lost = max(0.0, float(pool.scores[old].sum() - pool.scores[new].sum()))
    bit = sum(result == "bit" for _, result in results)
    return tuple(
        RuleOutcome(one.active.rule.name, one.active.label, result, lost / bit if result == "bit" else 0.0)
        for one, result in results
    )


def _result(one: CompiledRule, old: list[int], new: list[int], mask: int, k: int, *, moved: bool) -> RuleResult:
    rule = one.active.rule
    if not one.kept(new, k):
        return "not_kept"
    if isinstance(rule, Pin):
        at = slice(rule.position - 1, rule.position)
        return "held" if old[at] == new[at] else "bit"
    if isinstance(rule, Boost):
        return "bit" if moved and one.members & {*old, *new} else "held"
    return "bit" if one.bit & mask else "held"


def _moved(choice: Choice, k: int) -> bool:
    """Whether boosts change which candidates are best, or their order."""
    if choice.scores is choice.pool.scores:
        return False
    ranked = choice.pool.ranked
    old, new = (np.argsort(-scores[:ranked], kind="stable")[:k] for scores in (choice.pool.scores, choice.scores))
    return not np.array_equal(old, new)
