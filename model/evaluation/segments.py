"""The segment that a history belongs to by the default policies, as far as an evaluation can know it."""

from __future__ import annotations

from service.artifact.array_types import IntArray
from service.artifact.items.catalogue import Catalogue
from service.engine.decoding import Decoding
from service.policies import policies
from service.policies.segments import FACT_WINDOW, facts
from service.settings.service_settings import DEFAULT_POLICIES


class Segments:
    """The segments of the default policies. How long ago the last event was is not known, as in all evaluations.

    Attributes:
        names: Their names.
    """

    def __init__(self, catalogue: Catalogue, events_kept: int) -> None:
        """Reads the policies.

        Args:
            catalogue: The items and their categories.
            events_kept: Number of newest events that a service keeps.
        """
        self._rules = policies.load(DEFAULT_POLICIES)
        self._catalogue, self._kept = catalogue, events_kept
        self.names = self._rules.names

    def of(self, items: IntArray) -> str:
        """Returns the segment of a history of these items, oldest first."""
        kept = items[-self._kept :].tolist()
        categories = [self._catalogue.items[item].category for item in kept[-FACT_WINDOW:]]
        ids = [str(item) for item in kept]
        return self._rules.choose(facts(ids, categories, None, 0, self._catalogue.n_categories)).name

    def decoding(self, name: str) -> Decoding:
        """Returns how lists of a segment are decoded."""
        return self._rules.named(name).decoding.build()
