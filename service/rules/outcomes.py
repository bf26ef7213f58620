"""What became of each rule in a list, judged by the list itself."""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.fallback import RecommendationList
from service.engine.rule_report import RuleOutcome, RuleResult
from service.rules.choice import Choice
from service.rules.compiled import CompiledRule
from service.rules.spec import Boost, Pin


def outcomes(
    choice: Choice, before: RecommendationList, after: Sequence[int], k: int, *, moved: bool
) -> tuple[RuleOutcome, ...]:
    """Returns what became of each rule, in order of precedence.

    The cost of a list is what its scores, before boosts, add up to less than those of the list without rules; rules
    that changed the list share it evenly.

    Args:
        choice: What the list was chosen from, with the rules over it.
        before: The list without rules.
        after: Places of the list's items.
        k: Number of items asked for.
        moved: Whether boosts change which candidates are best, or their order.
    """
    mask = 0
    for passed in choice.selection.passed_over.values():
        mask |= passed
    old, new = before.items[:k].tolist(), choice.pool.items[list(after)].tolist()
    results: list[tuple[CompiledRule, RuleResult]] = []
    for one in choice.rules:
        rule = one.active.rule
        if isinstance(rule, Pin):
            bit = old[rule.position - 1 : rule.position] != new[rule.position - 1 : rule.position]
        else:
            bit = moved and bool(one.members) if isinstance(rule, Boost) else bool(one.bit & mask)
        results.append((one, ("bit" if bit else "held") if one.kept(after, k) else "not_kept"))
    lost = max(0.0, float(before.scores[:k].sum() - choice.pool.scores[list(after)].sum()))
    bits = sum(result == "bit" for _, result in results)
    return tuple(
        RuleOutcome(one.active.rule.name, one.active.label, result, lost / bits if result == "bit" else 0.0)
        for one, result in results
    )
