"""The served model as the request path sees it: engine, batchers, catalogue and fallback."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from service.artifact.array_types import BoolArray
from service.artifact.features import Vocabulary
from service.batching.batcher import Batcher
from service.common.deadline import Deadline
from service.common.errors import FilterNotReady, InvalidRequest, ModelError, NotFound
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Fallback
from service.engine.interface import Catalogue, EngineLike, Filters
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob
from service.engine.live_catalogue import LiveCatalogue

# Filters kept ready: their masks are large, and a shop uses few of them.
_FILTERS_MAX = 128
_T = TypeVar("_T")


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
        in_stock: [items] bool; None when every item is in stock.
        filter_thread: Prepares new filters, one after the other, so that they delay nothing else.
    """

    engine: EngineLike
    encoder: Batcher[EncodeJob, EncoderState]
    decoder: Batcher[DecodeJob, DecodedList]
    start_h: npt.NDArray[np.float32]
    vocabulary: Vocabulary
    catalogue: Catalogue
    fallback: Fallback
    in_stock: BoolArray | None
    filter_thread: Executor
    _masks: OrderedDict[bytes, BoolArray | None] = field(default_factory=OrderedDict)
    _filter_ids: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    _preparing: dict[tuple[str, bytes], asyncio.Future[Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        engine: EngineLike,
        encoder: Batcher[EncodeJob, EncoderState],
        decoder: Batcher[DecodeJob, DecodedList],
        start_h: npt.NDArray[np.float32],
        filter_thread: Executor,
    ) -> ServedModel:
        """Puts together the model of an engine; `start_h` [d] float32 is the state of a user without history."""
        a = engine.artifact
        fallback = Fallback(a.item_cf, a.popularity)
        in_stock = a.catalogue.allowed({})
        return cls(engine, encoder, decoder, start_h, a.vocabulary, a.catalogue, fallback, in_stock, filter_thread)

    def over(self, live: LiveCatalogue) -> ServedModel:
        """Returns the same model over a changed catalogue."""
        a = live.artifact
        fallback = replace(self.fallback, stand_in=live.stand_in)
        return ServedModel(
            self.engine, self.encoder, self.decoder, self.start_h, a.vocabulary, a.catalogue, fallback,
            a.catalogue.allowed({}), self.filter_thread,
        )  # fmt: skip

    @property
    def healthy(self) -> bool:
        """Whether both of the engine's threads are alive and neither is stuck."""
        return self.encoder.healthy and self.decoder.healthy

    @property
    def version(self) -> str:
        """The model version."""
        return self.engine.model_version

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

    def similar(self, item_id: str, k: int) -> dict[str, Any]:
        """Returns the body of `/items/{item_id}/similar`: the k nearest items in stock, by item-CF.

        Raises:
            NotFound: the item is not in the catalogue.
        """
        index = self.vocabulary.item_index.get(item_id)
        if index is None:
            raise NotFound("no item with this id in the catalogue")
        items, scores = self.fallback.similar(index, k, self.in_stock)
        ranked = ranked_items(self.catalogue, items, scores)
        return {"item_id": item_id, "items": ranked, "source": "item_cf", "model_version": self.version}

    async def allowed(self, filters: Filters) -> BoolArray | None:
        """Returns which items a filter allows. A new filter is prepared off the event loop.

        Args:
            filters: Allowed values by field; an item must match every field.

        Returns:
            [items] bool; None when every item is allowed.

        Raises:
            InvalidRequest: the filter has a field that items do not have.
        """
        if not filters:
            return self.in_stock
        key = _key(filters)
        if key not in self._masks:
            try:
                mask = await asyncio.shield(self._prepare("mask", key, self.catalogue.allowed, filters))
            except ValueError as error:
                fault = {"loc": ["filter"], "message": str(error), "type": "unknown_filter"}
                raise InvalidRequest("items have no such field", [fault]) from error
            _remember(self._masks, key, mask)
        return self._masks[key]

    async def filter_id(self, filters: Filters, deadline: Deadline) -> int:
        """Returns the engine's number of a filter. A new filter is prepared off the event loop.

        Args:
            filters: Allowed values by field; an item must match every field.
            deadline: How long to wait for a new filter.

        Raises:
            FilterNotReady: the time is up; the filter will be ready for a later request.
            ModelError: the engine cannot prepare the filter.
        """
        if not filters:
            return 0
        key = _key(filters)
        if key not in self._filter_ids:
            preparing = self._prepare("id", key, self.engine.filter_id, filters)
            await asyncio.wait({preparing}, timeout=deadline.remaining())
            if not preparing.done():
                raise FilterNotReady("the filter is not ready in time")
            try:
                _remember(self._filter_ids, key, preparing.result())
            except Exception as error:
                raise ModelError("the filter cannot be prepared") from error
        return self._filter_ids[key]

    def _prepare(self, what: str, key: bytes, work: Callable[[Filters], Any], filters: Filters) -> asyncio.Future[Any]:
        """The work on a filter: once, whoever asks for it meanwhile, in a thread of its own."""
        found = self._preparing.get((what, key))
        if found is None:
            found = asyncio.get_running_loop().run_in_executor(self.filter_thread, work, filters)
            self._preparing[what, key] = found
            found.add_done_callback(lambda done: self._prepared(what, key, done))
        return found

    def _prepared(self, what: str, key: bytes, done: asyncio.Future[Any]) -> None:
        del self._preparing[what, key]
        if not done.cancelled():
            done.exception()  # looked at: whoever asked may have stopped waiting


class Serving:
    """Holds the model that new requests use. A request keeps the model it began with.

    Args:
        model: The first model.
        on_replace: Called whenever another model, or the same over another catalogue, is in service.
    """

    def __init__(self, model: ServedModel, on_replace: Callable[[], None] = lambda: None) -> None:
        self.model = model
        self._on_replace = on_replace

    def __call__(self) -> ServedModel:
        """Returns the model for a request that begins now."""
        return self.model

    def replace(self, model: ServedModel) -> None:
        """Puts another model, or the same over another catalogue, in service."""
        self.model = model
        self._on_replace()


def ranked_items(
    catalogue: Catalogue, items: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Returns a list as responses have it, best first.

    Args:
        catalogue: The items.
        items: [n] catalogue indices, best first.
        scores: [n] their scores.
    """
    ids, title = catalogue.item_ids, catalogue.title
    ranked = zip(items.tolist(), scores.tolist(), strict=True)
    return [
        {"item_id": ids[item], "rank": rank, "score": score, "title": title(item)}
        for rank, (item, score) in enumerate(ranked, start=1)
    ]


def _key(filters: Filters) -> bytes:
    return orjson.dumps({name: sorted(set(values)) for name, values in sorted(filters.items())})


def _remember(cache: OrderedDict[bytes, _T], key: bytes, value: _T) -> None:
    cache[key] = value
    if len(cache) > _FILTERS_MAX:
        cache.popitem(last=False)
