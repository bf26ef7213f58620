"""What the playground page needs beyond `/recommend`.

That is the available choices, items by title, a sample history, and the explanation of a list. Nothing is stored, and
nothing here runs on a thread that answers to `/recommend` need.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from service.artifact.array_types import Array
from service.common.answer_warnings import Warnings
from service.common.errors import ModelError, Overloaded
from service.common.request_errors import NotFound
from service.engine.fallback import Constraints
from service.engine.interface import Explaining, MemoryRead
from service.history.event_warnings import event_warnings
from service.history.history import merge_events
from service.history.profile import Profile, pending_encoding
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.playground.title_index import TitleIndex
from service.policies.policies import Policies
from service.rules.spec import ListRule
from service.schemas.recommend_request import InlineEvent
from service.store.records import UserRecord

T = TypeVar("T")

VALUES_MAX = 200  # values shown of one feature or category field
_WAITING_MAX = 32  # tasks that may wait for the playground's thread
_COUNTED_MAX = 200_000  # items among which categories are counted
_SAMPLE_FROM = 120  # a sample history starts at one of so many most popular items
_NEAREST = 12  # neighbours from which the next item of a sample history is drawn
_DIGITS = 6  # of a share
_AGAIN_S = 10.0  # pause after titles were indexed
_POLL_S = 1.0  # how often a change of the catalogue is looked for
_EMPTY_RECORD = UserRecord("", ())
_UNBOUNDED = 2**31


class Explorer:
    """Answers the playground's questions about the model in service. Slow work runs on a thread of its own.

    Attributes:
        waiting: Tasks that wait for that thread, or run on it.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="playground")
        self.waiting = 0
        self._index: tuple[object, TitleIndex] | None = None
        self._categories: tuple[object, list[dict[str, Any]]] | None = None

    def close(self) -> None:
        """Cancels the waiting tasks and ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Indexes the titles of each catalogue when it comes into service, so that no request waits for that."""
        while True:
            model = self._serving.model
            if not self._indexed(model):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._titles, model)
                # All titles are read, and a shop may change items all the time.
                await asyncio.sleep(_AGAIN_S)
            await asyncio.sleep(_POLL_S)

    async def about(self, policies: Policies) -> dict[str, Any]:
        """Returns the choices that the page offers: segments, scenes, features, categories and event types."""
        model = self._serving.model
        context = model.vocabulary.context
        engine = model.engine
        manifest: Mapping[str, Any] = getattr(engine.artifact, "manifest", {})
        types: Mapping[str, int] = manifest.get("event_types") or {}
        return {
            "model_version": model.version,
            "items": len(model.vocabulary.item_index),
            "trained_on": _trained_on(manifest),
            "repeats": engine.artifact.repeats,
            "explains": isinstance(engine, Explaining) and engine.explains,
            "event_types": list(types) or ["view"],
            "times": model.vocabulary.has_time,
            "segments": [{"name": s.name, **s.decoding.model_dump()} for s in policies.segments],
            "rules": sorted({rule.name for some in _rules_of(policies) for rule in some or ()}),
            "categories": await self._run(self._counted, model),
            "scenes": list(islice(context.values.get(context.SCENE, {}), VALUES_MAX)),
            "features": {name: list(islice(context.values.get(name, {}), VALUES_MAX)) for name in context.fields},
            "codes": {name: list(islice(context.values.get(name, {}), VALUES_MAX)) for name in context.controls},
        }

    async def items(self, query: str, limit: int) -> dict[str, Any]:
        """Returns up to `limit` items whose title or id matches the query, the most popular first."""
        model = self._serving.model
        items = (await self._run(self._titles, model)).find(query, limit)
        exact = model.vocabulary.item_index.get(query.strip())
        if exact is not None:
            items = [exact, *(item for item in items if item != exact)][:limit]
        return {"items": [_shown(model, item) for item in items], "warnings": []}

    async def named(self, item_ids: Sequence[str]) -> dict[str, Any]:
        """Returns the items with these ids; unknown ids are left out, and named."""
        return await self._run(self._named, self._serving.model, item_ids)

    async def sample(self, seed: int) -> dict[str, Any]:
        """Returns a plausible history: a random walk from a popular item over item-CF neighbours."""
        return await self._run(self._sample, self._serving.model, seed)

    async def why(self, events: Sequence[InlineEvent], features: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        """Returns the share of each event in the state that a list is decoded from.

        Args:
            events: The history, in any order; the shares come in the same order.
            features: Of the user, for encoders that read them.
            now_ms: Time of events without a timestamp, in epoch milliseconds.

        Raises:
            NotFound: The artefact has no explainer.
            Overloaded: Too many tasks are waiting.
            ModelError: The explainer failed.
        """
        model = self._serving.model
        engine = model.engine
        if not isinstance(engine, Explaining) or not engine.explains:
            raise NotFound("this artefact has no explainer; export the model again with `gpt4rec export`")
        history = merge_events((), events, now_ms)
        pending = pending_encoding(Profile(None, model, _EMPTY_RECORD), history, history_cap=_UNBOUNDED)
        assert pending is not None  # noqa: S101 - there is at least one event, and no state to start from
        user, start = model.user_rows(features), pending.from_start
        explanation = await self._run(lambda: engine.explain(pending.events, from_start=start, context=user))
        found = zip(history.times_ms, history.item_ids, history.types, strict=True)
        place_of = {key: len(history) - place for place, key in enumerate(found)}
        keys = [(now_ms if e.timestamp is None else e.timestamp, e.item_id, e.type) for e in events]
        # Duplicates of an event are merged into one, so the first of them gets the share.
        places = [place_of.pop(key, 0) for key in keys]
        return {
            "weights": _by_event(explanation.weight, places, 0.0),
            "start": round(explanation.start, _DIGITS),
            "earlier": round(explanation.earlier, _DIGITS),
            "method": explanation.method,
            "memory": None if explanation.memory is None else _memory(explanation.memory, places),
            "model_version": model.version,
            "warnings": event_warnings(events, model).texts,
        }

    async def why_if_able(
        self, events: Sequence[InlineEvent], features: Mapping[str, Any], now_ms: int
    ) -> dict[str, Any] | None:
        """Returns what `why` returns; None if the artefact has no explainer, or if it cannot explain now."""
        try:
            return await self.why(events, features, now_ms)
        except (NotFound, Overloaded, ModelError):
            return None

    # On the playground's own thread

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        if self.waiting >= _WAITING_MAX:
            raise Overloaded("too many playground requests are waiting; try again in a moment")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        finally:
            self.waiting -= 1

    def _named(self, model: ServedModel, item_ids: Sequence[str]) -> dict[str, Any]:
        warnings = Warnings()
        warnings.unless_empty("the catalogue does not have these items", (i for i in item_ids if not model.known(i)))
        return {"items": [_shown(model, int(item)) for item in model.indices(item_ids)], "warnings": warnings.texts}

    def _sample(self, model: ServedModel, seed: int) -> dict[str, Any]:
        rng = random.Random(seed)  # noqa: S311 - not used for secrets
        nothing = np.zeros(0, np.int64)
        popular = model.fallback.popular(_SAMPLE_FROM, Constraints(model.in_stock, nothing)).items.tolist()
        walk = [rng.choice(popular)]
        for _ in range(rng.randint(3, 7)):
            near = [int(i) for i in model.fallback.similar(walk[-1], _NEAREST, model.in_stock)[0] if i not in walk]
            walk.append(rng.choice(near or [item for item in popular if item not in walk] or walk))
        return {"items": [_shown(model, item) for item in dict.fromkeys(walk)], "warnings": []}

    def _indexed(self, model: ServedModel) -> bool:
        return self._index is not None and self._index[0] is model.catalogue

    def _titles(self, model: ServedModel) -> TitleIndex:
        """The title index of the catalogue in service."""
        catalogue = model.catalogue
        if self._index is None or self._index[0] is not catalogue:
            ids, trained = catalogue.item_ids, model.fallback.popularity.order.tolist()
            items = trained + [item for item in range(len(trained), len(ids)) if ids[item]]
            self._index = catalogue, TitleIndex(items, (catalogue.title(item) or ids[item] for item in items))
        return self._index[1]

    def _counted(self, model: ServedModel) -> list[dict[str, Any]]:
        """Categories and the number of their items, the largest first."""
        catalogue = model.catalogue
        if self._categories is None or self._categories[0] is not catalogue:
            count = Counter(name for item in islice(catalogue.items, _COUNTED_MAX) for name in set(item.category))
            ranked = sorted(count.most_common(VALUES_MAX), key=lambda pair: (-pair[1], pair[0]))
            self._categories = catalogue, [{"name": name, "items": n} for name, n in ranked]
        return self._categories[1]


def _rules_of(policies: Policies) -> Iterator[Iterable[ListRule] | None]:
    yield policies.rules
    for segment in policies.segments:
        yield segment.rules


def _trained_on(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    data = manifest.get("data")
    if not isinstance(data, dict) or "name" not in data:
        return None
    return {"name": str(data["name"]), "users": data.get("users"), "events": data.get("events")}


def _by_event(newest: Array, places: Sequence[int], otherwise: float | None) -> list[Any]:
    """The values of events by their places, which count from the newest, 1; `newest` are those of the newest events."""
    values = {place: round(value, _DIGITS) for place, value in enumerate(newest[::-1].tolist(), start=1)}
    return [values.get(place, otherwise) for place in places]


def _memory(read: MemoryRead, places: Sequence[int]) -> dict[str, Any]:
    horizons = read.horizons
    return {
        "events": _by_event(read.events, places, 0.0),
        "sessions": None if read.sessions is None else _by_event(read.sessions, places, None),
        "slots": None if read.slots is None else [round(share, _DIGITS) for share in read.slots.tolist()],
        "horizons": None if horizons is None else {name: round(share, _DIGITS) for name, share in horizons.items()},
    }


def _shown(model: ServedModel, item: int) -> dict[str, Any]:
    entry = model.catalogue.items[item]
    return {"item_id": entry.item_id, "title": entry.title, "category": list(entry.category)}
