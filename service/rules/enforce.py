"""A list that obeys rules, chosen from what ranked it.

candidates + pinned items + items for lower limits → boosts → a drawn list? → choice → what became of each rule
                                          rules that only shrink: drawn anew from what they leave
                                          others: chosen by the noise of the draw, and recorded as not drawn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.artifact.noise import gumbel
from service.engine.decode.draws import draw, first_log_probs, nucleus
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.rules.choice import Choice, Pool, boosted, what_is_left
from service.rules.compiled import CompiledRule, compiled, problem
from service.rules.diversity import gain_of, relevance, similarities
from service.rules.outcomes import outcomes
from service.rules.problem import Problem
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling
from service.rules.selection import Gain, Selection, select
from service.rules.spec import AtLeast, Pin

# More popular items that are looked at where the candidates cannot keep all rules, in turn.
_MORE = (32, 256, 1024)
_NONE: IntArray = np.zeros(0, np.int64)
# Candidates that are looked at first, for each item of the list, and the fewest.
_FIRST_OF_EACH, _LEAST_FIRST = 4, 16
# Items with an attribute that are looked at beside those that a lower limit needs.
_SPARE = 16
# Scorers whose scores are sums or shares, not logarithms: what is so many times as likely has so many times the score.
_PLAIN = (("item_cf",), ("popularity",), ("repeat",))


@dataclass(frozen=True, slots=True)
class DrawnBy:
    """How a list was drawn.

    Attributes:
        decoding: Temperature and nucleus.
        seed: Seed of the noise.
    """

    decoding: Decoding
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Enforcer:
    """Makes the list of one request obey its rules.

    Attributes:
        ruling: The rules.
        k: Length of the list.
        reserve: Where more items come from.
        by: How a list that is drawn is drawn.
    """

    ruling: Ruling
    k: int
    reserve: Reserve
    by: DrawnBy

    def of(self, listing: RecommendationList) -> RecommendationList:
        """Returns the list that obeys the rules, of k items if so many are allowed.

        Args:
            listing: What ranked the candidates: best first, as many as there are. Of a drawn list, its draw tells them.
        """
        ranked = self._ranked(listing)
        moved = ranked.boosted is not ranked.scores and _top(ranked.boosted, self.k) != _top(ranked.scores, self.k)
        if listing.draw is not None and self.ruling.shrinks(self.k):
            return self._shrunk(listing, listing.draw, ranked, moved=moved)
        in_order = listing.draw is None and ranked.boosted is ranked.scores
        pool = ranked if in_order else ranked.take(np.lexsort((-ranked.keys, ranked.stage)))
        choice = _Chooser(self, listing, *self._first(pool)).choose({})
        # No position counts as drawn: what the rules made of the draw has another law.
        none = None if listing.draw is None else replace(listing.draw, log_propensities=np.zeros(0, np.float32))
        return self._listed(listing, choice, none, moved=moved)

    def _ranked(self, listing: RecommendationList) -> Pool:
        """The candidates: of a drawn list, what it was drawn from."""
        items, scores = listing.items, listing.scores
        if listing.draw is not None:
            items, scores = listing.draw.items, listing.draw.scores
            known = items < len(self.reserve.items.catalogue.item_ids)
            if not known.all():
                items, scores = items[known], scores[known]
        raised = boosted(self.ruling, self.reserve.items, items, scores, plain=_is_plain(listing))
        keys, stage = raised.astype(np.float64), np.zeros(len(items), np.int64)
        if listing.draw is not None and len(items) and not self.ruling.shrinks(self.k):
            log_probs = first_log_probs(raised, self.by.decoding)
            keys = log_probs + gumbel(self.reserve.items.hashes(items.tolist()), self.by.seed)
            if self.by.decoding.nucleus < 1.0:
                stage = (~nucleus(log_probs, self.by.decoding.nucleus)).astype(np.int64)
        return Pool(items.astype(np.int64), scores, raised, keys, stage)

    def added(self, listing: RecommendationList, items: IntArray) -> Pool:
        """Returns items that nothing ranked: they have the least score."""
        scores = np.full(len(items), min(0.0, float(listing.scores.min(initial=0.0))), np.float32)
        raised = boosted(self.ruling, self.reserve.items, items, scores, plain=_is_plain(listing))
        return Pool(items, scores, raised, raised.astype(np.float64), np.full(len(items), 2, np.int64))

    def _first(self, ranked: Pool) -> tuple[Pool, Pool]:
        """The candidates that are looked at first, with those that lower limits need and all pinned, and the others."""
        size = max(_LEAST_FIRST, _FIRST_OF_EACH * self.k)
        if len(ranked.items) <= size * 3 // 2:
            return ranked, ranked.take(_NONE)
        first = np.arange(len(ranked.items)) < size
        items = ranked.items.tolist()
        for number, active in enumerate(self.ruling.rules):
            rule = active.rule
            if isinstance(rule, Pin) and (place := self.reserve.items.index.get(rule.item, -1)) in items:
                first[items.index(place)] = True
            elif isinstance(rule, AtLeast):
                self._move_up(first, number, rule.n, items, size)
        return ranked.take(first), ranked.take(~first)

    def _move_up(self, first: BoolArray, number: int, n: int, items: list[int], size: int) -> None:
        """Marks the best candidates of a lower limit, if there are fewer than n among the first."""
        marks = self.reserve.items.marks
        missing = n - sum(number in mark.rules for mark in marks(self.ruling, items[:size]))
        if missing > 0:
            more = [place for place, mark in enumerate(marks(self.ruling, items[size:]), size) if number in mark.rules]
            first[more[:missing]] = True

    def _shrunk(self, listing: RecommendationList, drawn: Draw, ranked: Pool, *, moved: bool) -> RecommendationList:
        """The list drawn from what the rules leave of the candidates: any list of those keeps every rule."""
        rules = compiled(self.ruling, self.reserve.items, ranked.items.tolist(), self.k)
        left, left_out = what_is_left(rules, ranked.boosted)
        place_of = {item: place for place, item in enumerate(ranked.items.tolist())}
        before = [place_of[item] for item in listing.items[: self.k].tolist() if item in place_of]
        if len(left) == len(drawn.items) and not moved and ranked.boosted is ranked.scores and len(before) == self.k:
            choice = Choice(ranked, rules, Selection([], {}, 0))
            items, scores = listing.items[: self.k], listing.scores[: self.k]
            results = outcomes(choice, listing, before, self.k, moved=False)
            return replace(listing, items=items, scores=scores, rules=results)
        places, log_propensities = self._drawn(ranked.items[left], ranked.boosted[left])
        first = dict(enumerate(left[places].tolist(), start=1))
        choice = _Chooser(self, listing, ranked, ranked.take(_NONE)).choose(first)
        choice.selection.passed_over.update({place: mask for place, mask in left_out.items() if place in before})
        return self._listed(
            listing, choice, Draw(log_propensities, ranked.items[left], ranked.boosted[left]), moved=moved
        )

    def _drawn(self, items: IntArray, scores: FloatArray) -> tuple[IntArray, Float64Array]:
        if not len(items):
            return np.zeros(0, np.int64), np.zeros(0)
        return draw(self.reserve.items.hashes(items.tolist()), scores, self.by.decoding, self.by.seed, self.k)

    def _listed(
        self, listing: RecommendationList, choice: Choice, drawn: Draw | None, *, moved: bool
    ) -> RecommendationList:
        places = choice.selection.places
        results = outcomes(choice, listing, places, self.k, moved=moved)
        pool = choice.pool
        return replace(listing, items=pool.items[places], scores=pool.boosted[places], draw=drawn, rules=results)


class _Chooser:
    """Chooses one list from candidates, and looks at more of them where the first cannot keep all rules."""

    def __init__(self, enforcer: Enforcer, listing: RecommendationList, pool: Pool, rest: Pool) -> None:
        self._enforcer, self._listing = enforcer, listing
        self._pool, self._rest = self._with_needed(pool), rest
        self._rules: list[CompiledRule] = []
        self._more = iter(_MORE)
        self._first: Mapping[int, int] = {}

    def choose(self, first: Mapping[int, int]) -> Choice:
        """Returns the list, behind the places that stand in it already, by position."""
        self._first = first
        selection = select(*self._asked(), self._larger)
        return Choice(self._pool, self._rules, selection)

    def _asked(self) -> tuple[Problem, int, Gain | None]:
        ruling, k, items = self._enforcer.ruling, self._enforcer.k, self._enforcer.reserve.items
        pool = self._pool
        self._rules = compiled(ruling, items, pool.items.tolist(), k)
        asked = problem(self._rules, pool.keys, pool.stage, k)
        gain = None
        if ruling.diversity is not None and len(pool.items):
            alike = similarities(items.facets(pool.items.tolist()))
            gain = gain_of(ruling.diversity, relevance(pool.keys, k), alike)
        return replace(asked, pins=self._first) if self._first else asked, k, gain

    def _larger(self) -> tuple[Problem, Gain | None] | None:
        """The problem with more candidates: first the others that were ranked, then popular items."""
        more, self._rest = self._rest, self._rest.take(_NONE)
        for n in () if len(more.items) else self._more:
            more = self._added(self._enforcer.reserve.popular(n, self._pool.items))
            if len(more.items):
                break
        if len(more.items):
            there = set(self._pool.items.tolist())
            self._pool = self._pool.with_more(
                more.take(np.array([item not in there for item in more.items.tolist()], np.bool_))
            )
            asked, _, gain = self._asked()
            return asked, gain
        return None

    def _with_needed(self, pool: Pool) -> Pool:
        """The pool with what pins and lower limits need beside it."""
        ruling, k, reserve = self._enforcer.ruling, self._enforcer.k, self._enforcer.reserve
        for number, active in enumerate(ruling.rules):
            rule, there = active.rule, pool.items.tolist()
            if isinstance(rule, Pin):
                item = reserve.items.index.get(rule.item, -1)
                if item >= 0 and item not in there and reserve.may_list(item):
                    pool = pool.with_more(self._added(np.array([item], np.int64)))
            elif isinstance(rule, AtLeast):
                missing = min(rule.n, k) - sum(number in mark.rules for mark in reserve.items.marks(ruling, there))
                if missing > 0:
                    pool = pool.with_more(self._added(reserve.having(rule.where, missing + _SPARE, pool.items)))
        return pool

    def _added(self, items: IntArray) -> Pool:
        return self._enforcer.added(self._listing, items)


def _top(scores: FloatArray, k: int) -> list[int]:
    order: list[int] = np.argsort(-scores, kind="stable")[:k].tolist()
    return order


def _is_plain(listing: RecommendationList) -> bool:
    return listing.scorers in _PLAIN
