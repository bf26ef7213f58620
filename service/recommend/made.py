"""What made a list, decided in one place for everything that names it: answer, metrics, budgets and log line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.engine.decoding import Decoding, Strategy
from service.engine.fallback import RecommendationList, Source
from service.guard.guard import Reason, Rung


@dataclass(frozen=True, slots=True)
class Made:
    """A list, and what made it.

    Attributes:
        listing: The items. Their source is what scored them; items that fill the list up do not change it.
        rung: How far down the ladder the answer comes from. The artefact in service makes the lists of `full` and
            `narrow`: an artefact without a network answers `full` with its own source.
        reason: Why not from a higher rung, or why the list is short; None for neither.
        strategy: How the model decoded it; None if no model did.
    """

    listing: RecommendationList
    rung: Rung
    reason: Reason | None
    strategy: Strategy | None

    @classmethod
    def of(cls, listing: RecommendationList, rung: Rung, reason: Reason | None, *, wanted: Decoding, k: int) -> Made:
        """Says what made a list.

        Args:
            listing: The list.
            rung: Where it was made.
            reason: Why it was not made on a higher rung.
            wanted: The decoding at full width.
            k: Number of items asked for.
        """
        if reason is None and len(listing.items) < k:
            reason = "not_enough_items"
        return cls(listing, rung, reason, _strategy(listing.source, rung, wanted))

    @property
    def source(self) -> Source:
        """What scored the items."""
        return self.listing.source

    def labels(self) -> dict[str, Any]:
        """Returns what log lines and metrics say of it, under the names that answers use too."""
        return {"source": self.source, "rung": self.rung, "reason": self.reason, "strategy": self.strategy}


def _strategy(source: Source, rung: Rung, wanted: Decoding) -> Strategy | None:
    if source != "gpt4rec":
        return None
    # The narrow beam keeps as many nodes as there are items to list.
    return "greedy" if rung == "narrow" and wanted.strategy == "beam" else wanted.strategy
