"""What a language model says of an order of texts, as one more column of an order model.

Anything that gives an order of texts a log-probability is an `OrderScorer`. The service runs no language model, so the
prior becomes a table: what standing right below a text of one group makes of the probability of a text of another,

    follows(g, g') = mean of log P(t' | t) − log P(t')   over a few texts t of g and t' of g',

standardised. Its weight is learned with all others, so a prior that says nothing of clicks gets none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from model.slate.learning import Items, OrderError
from service.artifact.array_types import Float64Array
from service.artifact.items.catalogue import Catalogue

# Groups whose order is asked about, the largest first, and texts of each.
GROUPS, TEXTS = 32, 2
_BATCH = 64


class OrderScorer(Protocol):
    """Says how probable an order of texts is."""

    def log_probs(self, orders: Sequence[Sequence[str]]) -> Float64Array:
        """Returns [n] the natural logarithm of the probability of each order, texts from the top."""


def with_prior(items: Items, catalogue: Catalogue, scorer: OrderScorer) -> Items:
    """Returns the same items with a prior on the order of their groups.

    Args:
        items: The items.
        catalogue: Their titles.
        scorer: Says how probable an order of titles is.

    Raises:
        OrderError: Fewer than two groups have an item with a title.
    """
    texts = _texts(items, catalogue)
    groups = len(items.names)
    if len(texts) < 2:
        raise OrderError(
            "a prior on orders needs titles and categories, and fewer than two categories have an item with a title",
            fix="export the model with an item table that has them, or learn without --language-model",
        )
    pairs = [(g, h, t, u) for g in texts for h in texts for t in texts[g] for u in texts[h] if (g, t) != (h, u)]
    alone = {text: float(scorer.log_probs([[text]])[0]) for some in texts.values() for text in some}
    total, counted = np.zeros((groups, groups)), np.zeros((groups, groups))
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        together = scorer.log_probs([[t, u] for _, _, t, u in batch])
        for (g, h, t, u), value in zip(batch, together.tolist(), strict=True):
            total[g, h] += value - alone[t] - alone[u]
            counted[g, h] += 1.0
    known = counted > 0
    mean = total[known] / counted[known]
    found = np.zeros((groups, groups), np.float32)
    found[known] = (mean - mean.mean()) / max(float(mean.std()), 1e-9)
    return replace(items, follows=found)


def _texts(items: Items, catalogue: Catalogue) -> dict[int, list[str]]:
    """The titles that stand for each of the largest groups: those of its first items."""
    found: dict[int, list[str]] = {}
    for index in np.flatnonzero((items.group >= 0) & (items.group < GROUPS)).tolist():
        title = (catalogue.title(index) or "").strip()
        some = found.setdefault(int(items.group[index]), [])
        if title and len(some) < TEXTS and title not in some:
            some.append(title)
    return {group: some for group, some in sorted(found.items()) if some}
