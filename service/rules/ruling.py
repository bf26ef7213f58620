"""Which rules hold for a request, in their order of precedence. Pure: time and identity are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from service.common.shares import within_share
from service.engine.rule_report import RuleOutcome
from service.rules.spec import OF_REQUEST, Boost, Diversity, ListRule, Pin
from service.rules.terms import Terms

# What gives way last stands first.
PRECEDENCE = ("pin", "apart", "at_most", "at_least", "boost", "bury")


@dataclass(frozen=True, slots=True)
class ActiveRule:
    """A rule that holds for a request.

    Attributes:
        rule: The rule.
        label: Its name in metrics; rules of requests share one.
    """

    rule: ListRule
    label: str


@dataclass(frozen=True, eq=False)
class Ruling:
    """What a list must obey.

    Attributes:
        rules: The rules, highest precedence first.
        diversity: How its items are to differ; None: as they come.
    """

    rules: tuple[ActiveRule, ...]
    diversity: Diversity | None = None

    @cached_property
    def key(self) -> str:
        """What the rules ask about items: the same for rules that ask the same."""
        return "\n".join(question for one in self.rules for question in one.rule.questions)

    @cached_property
    def digest(self) -> bytes:
        """A digest of all that it says: the same for rules that make the same list of the same candidates."""
        said = [f"{one.label} {one.rule.model_dump_json()}" for one in self.rules]
        text = "\n".join(said if self.diversity is None else [*said, self.diversity.model_dump_json()])
        return blake2b(text.encode(), digest_size=16).digest()

    @cached_property
    def terms(self) -> Terms:
        """What the rules say, by their numbers."""
        return Terms.of([one.rule for one in self.rules])

    @cached_property
    def unchanged(self) -> Sequence[tuple[RuleOutcome, RuleOutcome]]:
        """What becomes of each rule in a list that it does not change: held, and not kept."""
        return [
            (RuleOutcome(one.rule.name, one.label, "held"), RuleOutcome(one.rule.name, one.label, "not_kept"))
            for one in self.rules
        ]

    @cached_property
    def boosts(self) -> int:
        """Mask of the rules, 1 << n each, that move scores."""
        return sum(1 << number for number, one in enumerate(self.rules) if isinstance(one.rule, Boost))

    def any_order(self, k: int) -> bool:
        """Returns whether a list of k that keeps the rules keeps them in any other order."""
        return self.diversity is None and all(
            isinstance(one.rule, Boost) or (not isinstance(one.rule, Pin) and (one.rule.first or k) >= k)
            for one in self.rules
        )

    def shrinks(self, k: int) -> bool:
        """Returns whether all rules can be kept by leaving candidates out before a list of k is drawn."""
        return self.diversity is None and all(_shrinks(active.rule, k) for active in self.rules)


def _shrinks(rule: ListRule, k: int) -> bool:
    if isinstance(rule, Boost):
        return True
    return rule.kind in ("at_most", "apart") and (rule.first is None or rule.first >= k)


def is_constant(rules: Sequence[ListRule]) -> bool:
    """Returns whether rules hold for every request at any time."""
    return all(rule.share >= 1.0 and rule.valid_from is None and rule.valid_until is None for rule in rules)


def ruling_of(
    sources: Sequence[Sequence[ListRule]], diversity: Diversity | None, *, now_ms: int, of: str
) -> Ruling | None:
    """Returns what holds for a request; None if nothing does.

    Args:
        sources: The rules of the request, of its segment, and of all segments. The first with a name has it.
        diversity: That of the request or of its segment.
        now_ms: Time of the request, in epoch milliseconds.
        of: The seed of its list, by which shares are drawn.
    """
    active: dict[str, ActiveRule] = {}
    named: set[str] = set()
    for number, rules in enumerate(sources):
        for rule in rules:
            if rule.name in named:
                continue
            named.add(rule.name)
            if _holds(rule, now_ms, of):
                active[rule.name] = ActiveRule(rule, rule.name if number else OF_REQUEST)
    if not active and (diversity is None or not diversity.weight):
        return None
    ordered = sorted(active.values(), key=lambda one: PRECEDENCE.index(one.rule.kind))
    return Ruling(tuple(ordered), diversity if diversity is not None and diversity.weight else None)


def _holds(rule: ListRule, now_ms: int, of: str) -> bool:
    if rule.valid_from is not None and now_ms < rule.valid_from.timestamp() * 1000.0:
        return False
    if rule.valid_until is not None and now_ms >= rule.valid_until.timestamp() * 1000.0:
        return False
    return within_share(rule.share, f"rule {rule.name}", of)
