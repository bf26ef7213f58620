"""What became of each rule in a list, judged by the list itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from service.engine.fallback import RecommendationList
from service.engine.rule_report import RuleOutcome
from service.rules.choice import Choice
from service.rules.ruling import Ruling
from service.rules.terms import OF_RULE, Mark, Terms


def outcomes(
    ruling: Ruling, choice: Choice, before: RecommendationList, after: Sequence[int], k: int
) -> tuple[RuleOutcome, ...]:
    """Returns what became of each rule, in order of precedence.

    The cost of a list is what its scores, before boosts, add up to less than those of the list without rules; rules
    that changed the list share it evenly.

    Args:
        ruling: The rules.
        choice: What the list was chosen from.
        before: The list without rules.
        after: Places of the list's items.
        k: Number of items asked for.
    """
    pool, terms = choice.pool, ruling.terms
    marks = pool.candidates.marks
    broken = _broken(terms, [marks[place] for place in after], k)
    passed = 0
    for mask in choice.selection.passed_over.values():
        passed |= mask
    for number, _, position in terms.pins:
        if position > k:
            continue
        there = after[position - 1] if position <= len(after) else -1
        if there != choice.pins.get(number, -2):
            broken |= terms.bit[number]
        old = before.items[position - 1 : min(position, k)].tolist()
        if old != ([] if there < 0 else [pool.items[there]]):
            passed |= terms.bit[number]
    if choice.moved:
        moving = ruling.boosts
        if moving & (moving - 1):  # there are several
            moving &= reduce(or_, [mark.named for mark in marks])
        passed |= sum(bit for number, bit in enumerate(terms.bit) if moving >> number & 1)
    bits = (passed & ~broken).bit_count()
    lost = max(0.0, sum(before.scores[:k].tolist()) - sum([pool.scores[place] for place in after])) if bits else 0.0
    of_each = lost / bits if bits else 0.0
    return tuple(
        [
            not_kept if broken & bit else RuleOutcome(held.name, held.label, "bit", of_each) if passed & bit else held
            for bit, (held, not_kept) in zip(terms.bit, ruling.unchanged, strict=True)
        ]
    )


def _broken(terms: Terms, listed: Sequence[Mark], k: int) -> int:
    """The mask of the limits and groups that a list does not keep."""
    broken = 0
    count: dict[int, int] = {}
    taken: dict[int, int] = {}
    first_of, high, groups = terms.first, terms.high, terms.groups
    for position, mark in enumerate(listed, start=1):
        for number in mark.sets:
            rule = number & OF_RULE
            if position > first_of[rule]:
                continue
            if rule in groups:
                if taken.setdefault(rule, number) != number:
                    broken |= terms.bit[rule]
                continue
            there = count[number] = count.get(number, 0) + 1
            if there > high[rule]:
                broken |= terms.bit[rule]
    for need in terms.needs:
        first = min(need.first, k)
        if sum([mark.named >> need.rule & 1 for mark in listed[:first]]) < min(need.n, first):
            broken |= need.bit
    return broken
