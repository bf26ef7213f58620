"""A list that obeys rules, chosen from what ranked it.

candidates + pinned items + items for lower limits → boosts → a drawn list? → choice → what became of each rule
                                          rules that only shrink: drawn anew from what they leave
                                          others: chosen by the noise of the draw, and recorded as not drawn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.noise import gumbel
from service.engine.decode.draws import draw, first_log_probs, nucleus
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.rules.choice import Choice, Pool, boosted, what_is_left
from service.rules.compiled import compiled, problem
from service.rules.diversity import gain_of, relevance, similarities
from service.rules.outcomes import outcomes
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling
from service.rules.selection import Gain, Selection, select
from service.rules.spec import AtLeast, Pin

# More popular items that are looked at where the candidates cannot keep all rules, in turn.
_MORE = (32, 256, 1024)
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
        pool = self._pool(listing)
        if listing.draw is not None and self.ruling.shrinks(self.k):
            return self._shrunk(listing, listing.draw, pool)
        choice = self._chosen(listing, pool, {})
        # No position counts as drawn: what the rules made of the draw has another law.
        none = None if listing.draw is None else replace(listing.draw, log_propensities=np.zeros(0, np.float32))
        return self._listed(listing, choice, none)

    def _pool(self, listing: RecommendationList) -> Pool:
        """The candidates, and what pins and lower limits need beside them."""
        items, scores = listing.items, listing.scores
        if listing.draw is not None:
            known = listing.draw.items < len(self.reserve.items.catalogue.item_ids)
            items, scores = listing.draw.items[known], listing.draw.scores[known]
        pool = Pool(items.astype(np.int64), scores, len(items))
        pins = [active.rule.item for active in self.ruling.rules if isinstance(active.rule, Pin)]
        if pins:
            index, there = self.reserve.items.index, set(pool.items.tolist())
            missing = {index[item] for item in pins if item in index}.difference(there)
            pool = pool.with_more(self.reserve.listable(np.array(sorted(missing), np.int64)))
        for active in self.ruling.rules:
            rule = active.rule
            if isinstance(rule, AtLeast):
                pool = self._with_enough(pool, rule)
        return pool

    def _with_enough(self, pool: Pool, rule: AtLeast) -> Pool:
        has = self.reserve.items.having(rule.where, rule.key, pool.items.tolist())
        missing = min(rule.n, self.k) - len(has)
        if missing <= 0:
            return pool
        return pool.with_more(self.reserve.having(rule.where, missing + _SPARE, pool.items))

    def _shrunk(self, listing: RecommendationList, drawn: Draw, pool: Pool) -> RecommendationList:
        """The list drawn from what the rules leave of the candidates: any list of those keeps every rule."""
        rules = compiled(self.ruling, self.reserve.items, pool.items.tolist(), self.k)
        scores = boosted(rules, pool, plain=_is_plain(listing))
        left, left_out = what_is_left(rules, scores)
        if len(left) == len(drawn.items) and np.array_equal(scores, pool.scores) and len(listing.items) >= self.k:
            selection = Selection([], {}, 0)
            choice = Choice(pool, rules, scores, selection)
            items, listed = listing.items[: self.k], listing.scores[: self.k]
            return replace(listing, items=items, scores=listed, rules=outcomes(choice, items, items, self.k))
        places, log_propensities = self._drawn(pool.items[left], scores[left])
        places = left[places].tolist()
        choice = self._chosen(listing, pool, dict(enumerate(places, start=1)))
        would = set(np.flatnonzero(np.isin(pool.items, listing.items[: self.k])).tolist())
        choice.selection.passed_over.update({place: mask for place, mask in left_out.items() if place in would})
        return self._listed(listing, choice, Draw(log_propensities, pool.items[left], scores[left]))

    def _drawn(self, items: IntArray, scores: FloatArray) -> tuple[IntArray, Float64Array]:
        if not len(items):
            return np.zeros(0, np.int64), np.zeros(0)
        return draw(self.reserve.items.hashes(items.tolist()), scores, self.by.decoding, self.by.seed, self.k)

    def _chosen(self, listing: RecommendationList, pool: Pool, first: Mapping[int, int]) -> Choice:
        """Chooses the list, behind the places that are there already, among more and more items."""
        for more in (*_MORE, 0):
            rules = compiled(self.ruling, self.reserve.items, pool.items.tolist(), self.k)
            scores = boosted(rules, pool, plain=_is_plain(listing))
            keys, stage = self._keys(scores, pool, drawn=listing.draw is not None)
            asked = problem(rules, keys, stage, self.k)
            if first:
                asked = replace(asked, pins=first)
            choice = Choice(pool, rules, scores, select(asked, self.k, self._gain(pool, keys)))
            if not more or not self._lacks(choice):
                break
            larger = pool.with_more(self.reserve.popular(more, pool.items))
            if larger is pool:
                break
            pool = larger
        return choice

    def _gain(self, pool: Pool, keys: Float64Array) -> Gain | None:
        if self.ruling.diversity is None or not len(keys):
            return None
        alike = similarities(self.reserve.items.facets(pool.items.tolist()))
        return gain_of(self.ruling.diversity, relevance(keys, self.k), alike)

    def _lacks(self, choice: Choice) -> bool:
        """Whether more items might help. Those that a lower limit needs are all there."""
        upper = sum(one.bit for one in choice.rules if not isinstance(one.active.rule, AtLeast))
        return len(choice.selection.places) < self.k or bool(choice.selection.broken & upper)

    def _keys(self, scores: FloatArray, pool: Pool, *, drawn: bool) -> tuple[Float64Array, IntArray]:
        """What ranks the pool: the scores, or what the draw makes of them; added items come last."""
        stage = np.full(len(scores), 2, np.int64)
        stage[: pool.ranked] = 0
        keys = scores.astype(np.float64)
        if drawn and pool.ranked:
            log_probs = first_log_probs(scores[: pool.ranked], self.by.decoding)
            hashes = self.reserve.items.hashes(pool.items[: pool.ranked].tolist())
            keys[: pool.ranked] = log_probs + gumbel(hashes, self.by.seed)
            stage[: pool.ranked] = ~nucleus(log_probs, self.by.decoding.nucleus)
        return keys, stage

    def _listed(self, listing: RecommendationList, choice: Choice, drawn: Draw | None) -> RecommendationList:
        places = choice.selection.places
        items = choice.pool.items[places]
        results = outcomes(choice, listing.items[: self.k], items, self.k)
        return replace(listing, items=items, scores=choice.scores[places], draw=drawn, rules=results)


def _is_plain(listing: RecommendationList) -> bool:
    return listing.scorers in _PLAIN
