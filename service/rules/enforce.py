"""A list that obeys rules, chosen from what ranked it.

candidates + pinned items + items for lower limits → boosts → a drawn list? → choice → what became of each rule
                                          rules that only shrink: drawn anew from what they leave
                                          others: chosen by the noise of the draw, and recorded as not drawn
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.graphs.noise import gumbel
from service.engine.decode.draws import draw, first_log_probs, nucleus
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.fallback import RecommendationList
from service.rules.choice import Choice, Pool, boosted, what_is_left
from service.rules.diversity import gain_of, relevance, similarities
from service.rules.outcomes import outcomes
from service.rules.reserve import Reserve
from service.rules.ruling import Ruling
from service.rules.selection import Candidates, Selection, choose
from service.rules.spec import AtLeast
from service.rules.terms import Mark

# More popular items that are looked at where the candidates cannot keep all rules, in turn.
_MORE = (32, 256, 1024)
# Candidates that diversity looks at first, for each item of the list, and the fewest.
_FIRST_OF_EACH, _LEAST_FIRST = 4, 16
# Items with an attribute that are looked at beside those that a lower limit needs.
_SPARE = 16
# Scorers whose scores are sums or shares, not logarithms: what is so many times as likely has so many times the score.
_PLAIN = (("item_cf",), ("popularity",), ("repeat",))


@dataclass(slots=True, eq=False)
class DrawnBy:
    """How a list was drawn.

    Attributes:
        decoding: Temperature and nucleus.
        seed: Seed of the noise.
    """

    decoding: Decoding
    seed: int


@dataclass(slots=True, eq=False)
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
        if listing.draw is None:
            items, scores = listing.items, listing.scores
        else:
            items, scores = listing.draw.items, listing.draw.scores
            known = items < len(self.reserve.items.catalogue.item_ids)
            if not known.all():
                items, scores = items[known], scores[known]
        indices = items.tolist()
        marks = self.reserve.items.marks(self.ruling, indices)
        raised = boosted(self.ruling, marks, scores, plain=_is_plain(listing))
        order = list(range(len(indices))) if raised is scores else np.argsort(-raised, kind="stable").tolist()
        moved = raised is not scores and order[: self.k] != self._plain_order(listing, scores)
        pool = self._pool(indices, scores, raised, marks, order)
        if listing.draw is not None and self.ruling.shrinks(self.k):
            return self._shrunk(listing, listing.draw, pool, moved=moved)
        if listing.draw is not None and indices:
            self._draw_keys(pool.candidates, indices, raised)
        choice = _Chooser(self, listing, pool).choose([], moved=moved)
        # No position counts as drawn: what the rules made of the draw has another law.
        none = None if listing.draw is None else replace(listing.draw, log_propensities=_NOTHING_DRAWN)
        return self._listed(listing, choice, none)

    def _plain_order(self, listing: RecommendationList, scores: FloatArray) -> list[int]:
        """The places of the best candidates without boosts."""
        if listing.draw is None:
            return list(range(min(self.k, len(scores))))
        first: list[int] = np.argsort(-scores, kind="stable")[: self.k].tolist()
        return first

    def _pool(
        self, items: list[int], scores: FloatArray, raised: FloatArray, marks: list[Mark], order: list[int]
    ) -> Pool:
        """The candidates, in the order in which they come."""
        plain = scores.tolist()
        boosted = plain[:] if raised is scores else raised.tolist()
        return Pool(items, plain, boosted, Candidates(boosted[:], [0] * len(items), marks, order))

    def _draw_keys(self, candidates: Candidates, items: list[int], raised: FloatArray) -> None:
        """Ranks candidates by the noise of the draw."""
        log_probs = first_log_probs(raised, self.by.decoding)
        keys = log_probs + gumbel(self.reserve.items.hashes(items), self.by.seed)
        candidates.keys = keys.tolist()
        if self.by.decoding.nucleus < 1.0:
            stage = (~nucleus(log_probs, self.by.decoding.nucleus)).astype(np.int64)
            candidates.stage, candidates.queue = stage.tolist(), np.lexsort((-keys, stage)).tolist()
        else:
            candidates.queue = np.argsort(-keys, kind="stable").tolist()

    def _shrunk(self, listing: RecommendationList, drawn: Draw, pool: Pool, *, moved: bool) -> RecommendationList:
        """The list drawn from what the rules leave of the candidates: any list of those keeps every rule."""
        raised = np.array(pool.boosted, np.float32)
        left, left_out = what_is_left(self.ruling.terms, pool.candidates.marks, raised)
        place_of = {item: place for place, item in enumerate(pool.items)}
        before = [place_of[item] for item in listing.items[: self.k].tolist() if item in place_of]
        if len(left) == len(drawn.items) and pool.boosted == pool.scores and len(before) == self.k:
            choice = Choice(pool, {}, Selection([], {}, 0), moved=False)
            items, scores = listing.items[: self.k], listing.scores[: self.k]
            results = outcomes(self.ruling, choice, listing, before, self.k)
            return replace(listing, items=items, scores=scores, rules=results)
        of_left = np.array(pool.items, np.int64)[left]
        places, log_propensities = self._drawn(of_left, raised[left])
        choice = _Chooser(self, listing, pool).choose(left[places].tolist(), moved=moved)
        choice.selection.passed_over.update({place: mask for place, mask in left_out.items() if place in before})
        return self._listed(listing, choice, Draw(log_propensities, of_left, raised[left]))

    def _drawn(self, items: IntArray, scores: FloatArray) -> tuple[IntArray, Float64Array]:
        if not len(items):
            return np.zeros(0, np.int64), np.zeros(0)
        return draw(self.reserve.items.hashes(items.tolist()), scores, self.by.decoding, self.by.seed, self.k)

    def _listed(self, listing: RecommendationList, choice: Choice, drawn: Draw | None) -> RecommendationList:
        places, pool = choice.selection.places, choice.pool
        return replace(
            listing,
            items=np.array([pool.items[place] for place in places], np.int64),
            scores=np.array([pool.boosted[place] for place in places], np.float32),
            draw=drawn,
            rules=outcomes(self.ruling, choice, listing, places, self.k),
        )


_NOTHING_DRAWN: FloatArray = np.zeros(0, np.float32)


class _Chooser:
    """Chooses one list from candidates, and looks at more of them where the first cannot keep all rules."""

    def __init__(self, enforcer: Enforcer, listing: RecommendationList, pool: Pool) -> None:
        self._ruling, self._k, self._reserve = enforcer.ruling, enforcer.k, enforcer.reserve
        self._listing, self._pool = listing, pool
        self._least = min(0.0, *(pool.scores if listing.draw is None else listing.scores.tolist()), 0.0)
        self._more = iter(_MORE)
        self._rest: Pool | None = None

    def choose(self, first: Sequence[int], *, moved: bool) -> Choice:
        """Returns the list, behind the places that stand in it already."""
        if self._ruling.diversity is not None:
            self._look_at_first()
        pinned = self._with_needed()
        pins = dict(enumerate(first, start=1)) if first else self._pins(pinned)
        self._rank_anew()
        selection = choose(self._pool.candidates, self._ruling.terms, self._k, pins, self._larger)
        return Choice(self._pool, pinned, selection, moved)

    def _with_needed(self) -> dict[int, int]:
        """Adds what pins and lower limits need beside the candidates; returns the place of what each rule pins."""
        ruling, reserve, pool = self._ruling, self._reserve, self._pool
        pinned: dict[int, int] = {}
        for number, item_id, _ in ruling.terms.pins:
            item = reserve.items.index.get(item_id, -1)
            if item in pool.items:
                pinned[number] = pool.items.index(item)
            elif item >= 0 and reserve.may_list(item):
                pinned[number] = len(pool.items)
                self._add([item])
        for need in ruling.terms.needs:
            there = min(need.n, self._k)
            for mark in pool.candidates.marks:
                if mark.named >> need.rule & 1:
                    there -= 1
                    if not there:
                        break
            rule = ruling.rules[need.rule].rule
            if there and isinstance(rule, AtLeast):
                having = reserve.having(rule.where, there + _SPARE, np.array(pool.items, np.int64))
                self._add(having.tolist())
        return pinned

    def _pins(self, pinned: dict[int, int]) -> dict[int, int]:
        """The place of the candidate at each pinned position, by the rules of highest precedence."""
        pins: dict[int, int] = {}
        for number, _, position in self._ruling.terms.pins:
            place = pinned.get(number)
            if place is not None and position <= self._k and position not in pins and place not in pins.values():
                pins[position] = place
        return pins

    def _larger(self) -> bool:
        """Adds candidates: first the others that were ranked, then popular items; returns whether there were any."""
        if self._rest is not None:
            self._pool.add(self._rest)
            self._rest = None
            self._rank_anew()
            return True
        for n in self._more:
            more = self._reserve.popular(n, np.array(self._pool.items, np.int64)).tolist()
            if more:
                self._add(more)
                self._rank_anew()
                return True
        return False

    def _add(self, items: list[int]) -> None:
        """Adds items that nothing ranked: they have the least score."""
        marks = self._reserve.items.marks(self._ruling, items)
        raised = [self._least] * len(items)
        if self._ruling.boosts and any(mark.raised for mark in marks):
            scores = np.array(raised, np.float32)
            raised = boosted(self._ruling, marks, scores, plain=_is_plain(self._listing)).tolist()
        candidates = Candidates(raised[:], [2] * len(items), marks, [])
        self._pool.add(Pool(items, [self._least] * len(items), raised, candidates))

    def _look_at_first(self) -> None:
        """Leaves candidates for later: diversity compares all that are looked at with each other."""
        queue, marks = self._pool.candidates.queue, self._pool.candidates.marks
        size = max(_LEAST_FIRST, _FIRST_OF_EACH * self._k)
        if len(queue) <= size * 3 // 2:
            return
        index, items = self._reserve.items.index, self._pool.items
        pinned = {index.get(item_id, -1) for _, item_id, _ in self._ruling.terms.pins}
        kept = {*queue[:size], *(place for place in queue if items[place] in pinned)}
        for need in self._ruling.terms.needs:
            kept.update([place for place in queue if marks[place].named >> need.rule & 1][: need.n])
        self._rest = self._pool.take([place for place in queue if place not in kept])
        self._pool = self._pool.take([place for place in queue if place in kept])

    def _rank_anew(self) -> None:
        """Compares all candidates that are looked at with each other, where the list is to be diverse."""
        diversity, pool = self._ruling.diversity, self._pool
        if diversity is None or not pool.items:
            return
        alike = similarities(self._reserve.items.facets(pool.items))
        keys = relevance(np.array(pool.candidates.keys), self._k)
        pool.candidates.gain = gain_of(diversity, keys, alike)


def _is_plain(listing: RecommendationList) -> bool:
    return listing.scorers in _PLAIN
