"""Random rules over random catalogues: each is kept or reported, and the list has k items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.fallback import Constraints, Fallback, RecommendationList
from service.engine.rule_report import RuleOutcome
from service.rules.enforce import DrawnBy, Enforcer
from service.rules.items import Items
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling, ruling_of
from service.rules.spec import Apart, AtLeast, AtMost, Boost, ListRule, Pin
from service.signals.user_history import UserHistory

N = 24
RULE: TypeAdapter[ListRule] = TypeAdapter(ListRule)
WHERES: list[dict[str, list[str]]] = [
    *({"brand": [brand]} for brand in "abc"),
    *({"category": [value]} for value in "xyz"),
    {"attribute": ["local"]},
]
ATTRIBUTES = ((), ("local",), ("seller:1",), ("seller:2",), ("seller:1", "local"))


def _catalogue(rng: np.random.Generator) -> Catalogue:
    items = []
    for i in range(N):
        tags = rng.permutation(["x", "y", "z"])[: rng.integers(0, 3)].tolist()
        brand = [None, "a", "b", "c"][rng.integers(4)]
        items.append(CatalogueItem(str(i), None, tuple(tags), brand, ATTRIBUTES[rng.integers(len(ATTRIBUTES))]))
    return Catalogue.of(items)


def _rule(rng: np.random.Generator, number: int) -> ListRule:
    n = int(rng.integers(1, 4))
    first = None if rng.random() < 0.4 else int(rng.integers(n, 9))
    where = WHERES[rng.integers(len(WHERES))]
    some = [str(i) for i in rng.permutation(N)[:3]]
    kinds: list[dict[str, Any]] = [
        {"kind": "pin", "item": some[0], "position": int(rng.integers(1, 9))},
        {"kind": ["boost", "bury"][rng.integers(2)], "where": where, "times": 4.0},
        {"kind": "at_most", "n": n, "where": where, "first": first},
        {"kind": "at_most", "n": n, "each": ["category", "brand"][rng.integers(2)], "first": first},
        {"kind": "at_most", "n": n, "each": "attribute", "prefix": "seller:", "first": first},
        {"kind": "at_least", "n": n, "where": where, "first": first},
        {"kind": "at_least", "n": n, "new": True, "first": first},
        {"kind": "apart", "items": some},
        {"kind": "apart", "groups": [{"brand": ["a"]}, {"brand": ["b", "c"]}], "first": first},
    ]
    return RULE.validate_python({"name": f"r{number}", **kinds[rng.integers(len(kinds))]})


class World:
    """A catalogue, what ranks it, and rules over its lists."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.catalogue = _catalogue(rng)
        self.k = int(rng.integers(1, 9))
        rules = tuple(_rule(rng, number) for number in range(rng.integers(1, 5)))
        ruling = ruling_of([rules], None, now_ms=0, of="")
        assert ruling is not None
        self.ruling: Ruling = ruling
        counts = np.array([N - i if i < N - 6 else 0 for i in range(N)], np.float64)
        popularity = Popularity.of((counts / counts.sum()).astype(np.float32), int(counts.sum()))
        nothing = ItemCF(np.zeros((N, 1), np.int32), np.zeros((N, 1), np.float32), decay=1.0)
        allowed = None if rng.random() < 0.5 else rng.random(N) < rng.random()
        excluded = np.sort(rng.permutation(N)[: rng.integers(0, 5)])
        self.limits = Constraints(allowed, excluded)
        index = {str(i): i for i in range(N)}
        items = Items(self.catalogue, popularity, index)
        fallback = Fallback(nothing, popularity)
        self.reserve = Reserve(items, fallback, self.limits, lambda: UserHistory.of_items(np.zeros(0, np.int64)))
        self.listable = [i for i in range(N) if (allowed is None or allowed[i]) and i not in excluded]
        ranked = rng.permutation(self.listable).astype(np.int64)
        self.ranked = ranked[: rng.integers(0, len(ranked) + 1)]
        self.scores = (-np.arange(1, len(self.ranked) + 1) / 4).astype(np.float32)

    def enforced(self, listing: RecommendationList, decoding: Decoding, seed: int = 7) -> RecommendationList:
        return Enforcer(self.ruling, self.k, self.reserve, DrawnBy(decoding, seed)).of(listing)

    def has(self, where: Any, item: int) -> bool:
        one = self.catalogue.item(item)
        return all(set(one.facet(name)) & set(values) for name, values in where.items())

    def keeps(self, rule: ListRule, items: Sequence[int]) -> bool:
        """Whether a list keeps a rule, by what the rule says."""
        match rule:
            case Pin():
                return rule.position > self.k or list(items[rule.position - 1 : rule.position]) == [int(rule.item)]
            case Boost():
                return True
            case AtMost(where=None):
                first = items[: rule.first or self.k]
                values = [v for i in first for v in self.catalogue.item(i).facet(rule.each or "")]
                return all(values.count(v) <= rule.n for v in values if v.startswith(rule.prefix or ""))
            case AtMost():
                return sum(self.has(rule.where, i) for i in items[: rule.first or self.k]) <= rule.n
            case AtLeast():
                first = items[: rule.first or self.k]
                there = [i >= N - 6 if rule.where is None else self.has(rule.where, i) for i in first]
                return sum(there) >= min(rule.n, self.k)
            case Apart(groups=None):
                return sum(str(i) in (rule.items or ()) for i in items) <= 1
            case Apart():
                first = items[: rule.first or self.k]
                groups = rule.groups or ()
                found = [[g for g, where in enumerate(groups) if self.has(where, i)][:1] for i in first]
                return len({group for one in found for group in one}) <= 1


def _check(world: World, listed: RecommendationList) -> None:
    items = listed.items.tolist()
    assert len(items) == min(world.k, len(world.listable)) == len(set(items)) == len(listed.scores)
    assert set(items) <= set(world.listable)
    assert [outcome.name for outcome in listed.rules] == [active.rule.name for active in world.ruling.rules]
    by_name: dict[str, RuleOutcome] = {outcome.name: outcome for outcome in listed.rules}
    for active in world.ruling.rules:
        kept = by_name[active.rule.name].result != "not_kept"
        assert kept == world.keeps(active.rule, items), active.rule


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_every_rule_is_kept_or_reported_and_the_list_has_k_items(seed: int) -> None:
    world = World(seed)
    listing = RecommendationList(world.ranked, world.scores, "gpt4rec")
    listed = world.enforced(listing, Decoding("greedy"))
    _check(world, listed)
    assert listed.draw is None


@given(st.integers(0, 2**32), st.sampled_from([Decoding("temperature"), Decoding("top_p", top_p=0.7)]))
@settings(max_examples=80, deadline=None)
def test_a_drawn_list_says_the_law_of_what_it_was_drawn_from_or_that_nothing_was_drawn(
    seed: int, decoding: Decoding
) -> None:
    world = World(seed)
    drawn = Draw(np.zeros(0, np.float32), world.ranked, world.scores)
    listing = RecommendationList(world.ranked[: world.k], world.scores[: world.k], "gpt4rec", draw=drawn)
    listed = world.enforced(listing, decoding)
    _check(world, listed)
    assert listed.draw is not None
    logged = listed.draw.log_propensities
    assert logged is not None
    if not world.ruling.shrinks(world.k):
        assert not len(logged)
        return
    left = dict(zip(listed.draw.items.tolist(), listed.draw.scores.astype(np.float64), strict=True))
    if decoding.strategy == "temperature":
        for item, score, log_propensity in zip(listed.items.tolist(), listed.scores, logged, strict=False):
            assert left[item] == score
            expected = left[item] - np.logaddexp.reduce(list(left.values()))
            assert abs(expected - log_propensity) < 1e-9
            del left[item]
