"""The served model as the request path sees it: engine, batchers, catalogue and fallback."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.features import Vocabulary
from service.artifact.graphs.encoder_version import EncoderVersion
from service.artifact.items.filter_conditions import Filters
from service.artifact.items.item_filters import ItemFilter
from service.artifact.scorers.popularity import Popularity
from service.batching.batcher import Batcher
from service.catalogue.item_view import ranked_items
from service.common.deadline import Deadline
from service.common.errors import FilterNotReady
from service.common.request_errors import InvalidRequest, NotFound
from service.engine.companions import Companions
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Constraints, Fallback
from service.engine.interface import CatalogueView, EngineLike
from service.engine.jobs import EVERYTHING, NOTHING, DecodedList, DecodeJob, EncodeJob
from service.engine.live_catalogue import LiveCatalogue
from service.lifecycle.catalogue_digest import catalogue_digest, digest_of_ids
from service.lifecycle.evictable_engine import EvictableEngine
from service.lifecycle.filter_builds import FilterBuilds
from service.lifecycle.list_filter import ListFilter
from service.ordering.ordering import Ordering
from service.signals.ranker import Ranker

# Items whose ids and titles are kept as strings: the columns make a new string each time.
_CARDS_MAX = 65_536

_generations = itertools.count(1)


@dataclass(slots=True)
class ServedModel:
    """Everything that requests need of one model version. Replaced as a whole, never changed.

    Attributes:
        engine: Runs the model.
        encoder: The batcher of encode jobs.
        decoder: The batcher of decode jobs.
        start_h: [d] float32 hidden state of a user without history.
        vocabulary: Ids of items, event types and context values, by index.
        catalogue: The items.
        fallback: Scorers that need no model.
        ranker: The signals besides the network, and the weights of all.
        in_stock: [items] bool; None when every item is in stock.
        filters: Builds new filters.
        ids_digest: Digests the ids of the items.
        catalogue_version: A digest of the items and the stock, 12 hex digits.
        ordering: Puts the first items of a list into order; None where lists are by score.
        placed_by: What gave the items that came after the export their places, by catalogue index.
        generation: A number that no other model in this process has, nor this one over another catalogue.
    """

    engine: EngineLike
    encoder: Batcher[EncodeJob, EncoderState]
    decoder: Batcher[DecodeJob, DecodedList]
    start_h: npt.NDArray[np.float32]
    vocabulary: Vocabulary
    catalogue: CatalogueView
    fallback: Fallback
    ranker: Ranker
    in_stock: BoolArray | None
    filters: FilterBuilds
    ids_digest: blake2b
    catalogue_version: str
    ordering: Ordering | None = None
    placed_by: Mapping[int, str] = field(default_factory=dict)
    generation: int = field(init=False, default_factory=_generations.__next__)
    _everything: ItemFilter | None = field(default=None, init=False, repr=False)
    _cards: dict[int, tuple[str, str | None]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        engine: EngineLike,
        encoder: Batcher[EncodeJob, EncoderState],
        decoder: Batcher[DecodeJob, DecodedList],
        start_h: npt.NDArray[np.float32],
        filters: FilterBuilds,
        order_first: int = 0,
    ) -> ServedModel:
        """Puts together the model of an engine.

        Args:
            engine: Runs the model.
            encoder: The batcher of encode jobs.
            decoder: The batcher of decode jobs.
            start_h: [d] float32 hidden state of a user without history.
            filters: Builds new filters for the engine.
            order_first: How many items of a list the artefact's order model puts into order.
        """
        parts = engine.artifact
        catalogue, ranker = parts.catalogue, Ranker.of(parts.signals, parts.ranker)
        in_stock, ids_digest = catalogue.allowed({}), digest_of_ids(catalogue.item_ids)
        return cls(
            engine, encoder, decoder, start_h, parts.vocabulary, catalogue,
            Fallback.of(parts.item_cf, parts.popularity, ranker), ranker, in_stock, filters,
            ids_digest, catalogue_digest(ids_digest, in_stock), Ordering.of(parts.order, order_first),
        )  # fmt: skip

    def over(self, live: LiveCatalogue) -> ServedModel:
        """Returns the same model over a changed catalogue."""
        catalogue, same = live.artifact.catalogue, live.stand_in is self.fallback.stand_in
        in_stock = catalogue.allowed({})
        known = live.artifact.vocabulary.item_index is self.vocabulary.item_index
        of_ids = self.ids_digest if known else digest_of_ids(catalogue.item_ids)
        return replace(
            self,
            vocabulary=live.artifact.vocabulary,
            catalogue=catalogue,
            fallback=self.fallback if same else self.fallback.over(live.stand_in),
            ranker=self.ranker if same else self.ranker.over(live.stand_in),
            in_stock=in_stock,
            placed_by=live.placed_by,
            ids_digest=of_ids,
            catalogue_version=catalogue_digest(of_ids, in_stock),
            ordering=None if self.ordering is None else self.ordering.over(live.stand_in),
        )

    @property
    def popularity(self) -> Popularity:
        """The items by popularity."""
        return self.fallback.popularity

    @property
    def healthy(self) -> bool:
        """Whether both of the engine's threads are alive and neither is stuck."""
        return self.encoder.healthy and self.decoder.healthy

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self.encoder.depth + self.decoder.depth > 0

    @property
    def evicted(self) -> bool:
        """Whether the engine made room for other models: only the rungs below can answer."""
        return isinstance(self.engine, EvictableEngine) and self.engine.evicted

    def want(self) -> None:
        """Asks for the engine, which counts as use; if it is closed, it is opened again as soon as there is room."""
        if isinstance(self.engine, EvictableEngine):
            self.engine.want()

    @property
    def version(self) -> str:
        """The model version."""
        return self.engine.model_version

    @property
    def encoder_version(self) -> EncoderVersion:
        """What states depend on; models with the same version share them."""
        return self.engine.artifact.encoder_version

    @property
    def reads_features(self) -> bool:
        """Whether the encoder reads the features of the user, so that a state depends on them."""
        return bool(self.engine.artifact.manifest.get("encoder_reads_features"))

    def user_rows(self, features: Mapping[str, Any]) -> IntArray | None:
        """Returns the rows of features [slots] as the encoder reads them; None if it reads none, or none is known.

        Args:
            features: Values by name. Slots of the request, such as the scene, are no features.
        """
        if not self.reads_features or not features:
            return None
        vocabulary = self.vocabulary.context
        rows = vocabulary.encode({name: value for name, value in features.items() if name in vocabulary.fields})
        return rows if rows.any() else None

    def excludes_seen(self, asked: bool | None) -> bool:
        """Returns whether a list leaves out what the user has seen.

        Args:
            asked: What the request says; None leaves it to the model: no where people take the same items again.
        """
        return not self.engine.artifact.repeats if asked is None else asked

    def known(self, item_id: str) -> bool:
        """Returns whether the item is in the catalogue."""
        return item_id in self.vocabulary.item_index

    def indices(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Returns the [m ≤ n] catalogue indices of those items that are in the catalogue."""
        index = self.vocabulary.item_index
        return np.array([index[item_id] for item_id in item_ids if item_id in index], np.int64)

    def places(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Returns [n] catalogue indices, also of items newer than the export; an unknown item gets `unknown_item`."""
        index, unknown = self.vocabulary.item_index, self.vocabulary.unknown_item
        return np.fromiter((index.get(item_id, unknown) for item_id in item_ids), np.int64, len(item_ids))

    def categories(self, item_ids: Sequence[str]) -> list[Sequence[str]]:
        """Returns the categories (levels or tags) of each item; none for an unknown one."""
        index, items = self.vocabulary.item_index, self.catalogue.items
        return [items[index[item_id]].category if item_id in index else () for item_id in item_ids]

    def _index(self, item_id: str) -> int:
        """The catalogue index of an item. Raises NotFound if there is none."""
        index = self.vocabulary.item_index.get(item_id)
        if index is None:
            raise NotFound("no item with this id in the catalogue")
        return index

    def similar(self, item_id: str, k: int, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns the body of `/items/{item_id}/similar`: the k nearest items in stock, by item-CF.

        Args:
            item_id: The item.
            k: Number of items.
            fields: What is shown of each item; None for the title.

        Raises:
            NotFound: the item is not in the catalogue.
        """
        index = self._index(item_id)
        items, scores = self.fallback.similar(index, k, self.in_stock)
        ranked = ranked_items(self.catalogue, items, scores, fields)
        return {"item_id": item_id, "items": ranked, "source": "item_cf", "model_version": self.version}

    def together(self, item_id: str, k: int, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns the body of `/items/{item_id}/together`: the k items in stock that are most in one basket with it.

        Args:
            item_id: The item.
            k: Number of items.
            fields: What is shown of each item; None for the title.

        Raises:
            NotFound: the item is not in the catalogue.
        """
        index = self._index(item_id)
        itself = np.array([index], np.int64)
        found = self.companions.by_baskets(itself, Constraints(self.in_stock, itself), k)
        if len(found.items):
            ranked = ranked_items(self.catalogue, found.items, found.scores, fields)
            source, warnings = "baskets", []
        else:
            like = self.similar(item_id, k, fields)
            ranked, source, warnings = like["items"], like["source"], [f"{self.companions.why_not}: item-CF lists"]
        return {
            "item_id": item_id, "items": ranked, "source": source, "warnings": warnings,
            "model_version": self.version,
        }  # fmt: skip

    @property
    def companions(self) -> Companions:
        """What goes with items of a basket."""
        return Companions(self.engine.artifact.together, self.fallback)

    def filter(self, filters: Filters) -> ItemFilter:
        """Returns a filter of this catalogue. Values that no item has are no part of it, and cost nothing.

        Args:
            filters: A condition for each field; an item must meet all of them.

        Raises:
            InvalidRequest: Items have no such field, or it takes no such condition.
        """
        if not filters and self._everything is not None:
            return self._everything
        try:
            found = self.catalogue.filter(filters)
            if not filters:
                self._everything = found
            return found
        except ValueError as error:
            fault = {"loc": ["filter"], "message": str(error), "type": "unknown_filter"}
            raise InvalidRequest(
                "items have no such field, or it takes no such condition; see errors", [fault]
            ) from error

    def listed(
        self, items: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], fields: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        """Returns a list as `ranked_items` does; the ids and titles of items that were listed lately are kept."""
        if fields is not None:
            return ranked_items(self.catalogue, items, scores, fields)
        cards, listed = self._cards, []
        for rank, (item, score) in enumerate(zip(items.tolist(), scores.tolist(), strict=True), start=1):
            card = cards.get(item)
            if card is None:
                if len(cards) >= _CARDS_MAX:
                    cards.clear()
                card = cards[item] = (self.catalogue.item_ids[item], self.catalogue.title(item))
            listed.append({"item_id": card[0], "rank": rank, "score": score, "title": card[1]})
        return listed

    def ready(self, wanted: ItemFilter) -> ListFilter | None:
        """Returns what an answer needs of a filter; None if that must be built first. Safe to call from any thread."""
        if wanted.nothing:
            return ListFilter(NOTHING, wanted)
        if not wanted.fields:
            return ListFilter(EVERYTHING, self.in_stock)
        held = self.filters.held(wanted)
        return None if held is None else ListFilter(held.id, held.allowed)

    def tested(self, wanted: ItemFilter) -> ListFilter:
        """Returns a filter that is asked about a few items; nothing is built for it."""
        return self.ready(wanted) or ListFilter(None, wanted)

    async def prepared(self, wanted: ItemFilter, caller: str, deadline: Deadline) -> ListFilter:
        """Returns what an answer needs of a filter. A new one is built off the event loop, as far as there is time.

        Args:
            wanted: The filter.
            caller: Who asks.
            deadline: How long to wait for a new filter.
        """
        if (ready := self.ready(wanted)) is not None:
            return ready
        if self.evicted:
            return ListFilter(None, wanted)
        try:
            held = await self.filters.ready(wanted, caller, deadline)
        except FilterNotReady:
            return ListFilter(None, wanted)
        return ListFilter(held.id, held.allowed)
