"""What the playground page asks beyond `/recommend`: what there is to choose from, items by title, a history to begin
with, and why. Nothing is stored, and none of it shares a thread with the answers to `/recommend`."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from service.common.errors import NotFound, Overloaded
from service.engine.fallback import Constraints
from service.engine.interface import Explaining
from service.history.history import merge_events
from service.history.profile import Profile, pending_encoding
from service.lifecycle.served_model import ServedModel, Serving
from service.playground.title_index import TitleIndex
from service.policies.policies import Policies
from service.schemas.requests import InlineEvent
from service.store.records import UserRecord

T = TypeVar("T")

VALUES_MAX = 200  # of one feature or category field
METHOD = "attention_rollout"
_WAITING_MAX = 32  # questions of one process that may wait
_COUNTED_MAX = 200_000  # items whose categories are counted
_SAMPLE_FROM = 120  # of the most popular items, where histories begin
_NEAREST = 12
_LOOK_S = 1.0
_NOBODY = UserRecord("", ())
_UNBOUNDED = 2**31


class Explorer:
    """Answers for one process, about the model in service. One thread does what takes long."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="playground")
        self.waiting = 0
        self._index: tuple[object, TitleIndex] | None = None
        self._categories: tuple[object, list[dict[str, Any]]] | None = None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Indexes the titles of each catalogue as it comes into service, so that nobody's question waits for it."""
        while True:
            model = self._serving.model
            if not self._indexed(model):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._titles, model)
            await asyncio.sleep(_LOOK_S)

    async def about(self, policies: Policies) -> dict[str, Any]:
        """What there is to choose from."""
        model = self._serving.model
        context = model.vocabulary.context
        engine = model.engine
        manifest: Mapping[str, Any] = getattr(engine.artifact, "manifest", {})
        types: Mapping[str, int] = manifest.get("event_types") or {}
        return {
            "model_version": model.version,
            "items": len(model.vocabulary.item_index),
            "trained_on": _trained_on(manifest),
            "explains": isinstance(engine, Explaining) and engine.explains,
            "event_types": list(types) or ["view"],
            "times": model.vocabulary.has_time,
            "segments": [{"name": s.name, **s.decoding.model_dump()} for s in policies.segments],
            "categories": await self._run(self._counted, model),
            "scenes": list(islice(context.values.get(context.SCENE, {}), VALUES_MAX)),
            "features": {name: list(islice(context.values.get(name, {}), VALUES_MAX)) for name in context.fields},
        }

    async def items(self, query: str, limit: int) -> dict[str, Any]:
        """Items by title, the most popular first; an item's id finds it too."""
        model = self._serving.model
        found = (await self._run(self._titles, model)).find(query, limit)
        exact = model.vocabulary.item_index.get(query.strip())
        if exact is not None:
            found = [exact, *(item for item in found if item != exact)][:limit]
        return {"items": [_shown(model, item) for item in found]}

    async def named(self, item_ids: Sequence[str]) -> dict[str, Any]:
        """The items of these ids, those that there are."""
        return await self._run(self._named, self._serving.model, item_ids)

    async def sample(self, seed: int) -> dict[str, Any]:
        """A history that might be somebody's: a walk from a popular item over its neighbours."""
        return await self._run(self._sample, self._serving.model, seed)

    async def why(self, events: Sequence[InlineEvent], now_ms: int) -> dict[str, Any]:
        """The share of every event, in the order given, in the state that a list is decoded from.

        Raises:
            NotFound: the artefact has no explainer.
            Overloaded: too many wait already.
            ModelError: the graph did not run.
        """
        model = self._serving.model
        engine = model.engine
        if not isinstance(engine, Explaining) or not engine.explains:
            raise NotFound("this artefact has no explainer; `gpt4rec export` writes one")
        given = merge_events((), events, now_ms)
        work = pending_encoding(Profile(None, model, _NOBODY), given, history_cap=_UNBOUNDED)
        assert work is not None  # noqa: S101 - there is at least one event, and no state to begin with
        found = await self._run(lambda: engine.explain(work.events, from_start=work.from_start))
        shares = [0.0] * (len(given) - len(found.weight)) + found.weight.tolist()
        by_event = dict(zip(zip(given.times_ms, given.item_ids, given.types, strict=True), shares, strict=True))
        keys = [(now_ms if e.timestamp is None else e.timestamp, e.item_id, e.type) for e in events]
        # A repeated event is one event: the first of them has its share.
        weights = [round(by_event.pop(key, 0.0), 6) for key in keys]
        return {"weights": weights, "start": round(found.start, 6), "method": METHOD, "model_version": model.version}

    # -- in the playground's own thread

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        if self.waiting >= _WAITING_MAX:
            raise Overloaded("the playground has enough to do")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        finally:
            self.waiting -= 1

    def _named(self, model: ServedModel, item_ids: Sequence[str]) -> dict[str, Any]:
        return {"items": [_shown(model, int(item)) for item in model.indices(item_ids)]}

    def _sample(self, model: ServedModel, seed: int) -> dict[str, Any]:
        dice = random.Random(seed)  # noqa: S311 - nothing is kept secret with it
        nothing = np.zeros(0, np.int64)
        popular = model.fallback.popular(_SAMPLE_FROM, Constraints(model.in_stock, nothing)).items.tolist()
        walk = [dice.choice(popular)]
        for _ in range(dice.randint(3, 7)):
            near = [int(i) for i in model.fallback.similar(walk[-1], _NEAREST, model.in_stock)[0] if i not in walk]
            walk.append(dice.choice(near or [item for item in popular if item not in walk] or walk))
        return {"items": [_shown(model, item) for item in dict.fromkeys(walk)]}

    def _indexed(self, model: ServedModel) -> bool:
        return self._index is not None and self._index[0] is model.catalogue

    def _titles(self, model: ServedModel) -> TitleIndex:
        """The index of the catalogue in service."""
        catalogue = model.catalogue
        if self._index is None or self._index[0] is not catalogue:
            ids, trained = catalogue.item_ids, model.fallback.popularity.order.tolist()
            items = trained + [item for item in range(len(trained), len(ids)) if ids[item]]
            self._index = catalogue, TitleIndex(items, (catalogue.title(item) or ids[item] for item in items))
        return self._index[1]

    def _counted(self, model: ServedModel) -> list[dict[str, Any]]:
        """Categories and how many items have them, the largest first."""
        catalogue = model.catalogue
        if self._categories is None or self._categories[0] is not catalogue:
            count = Counter(name for item in islice(catalogue.items, _COUNTED_MAX) for name in set(item.category))
            ranked = sorted(count.most_common(VALUES_MAX), key=lambda pair: (-pair[1], pair[0]))
            self._categories = catalogue, [{"name": name, "items": n} for name, n in ranked]
        return self._categories[1]


def _trained_on(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    data = manifest.get("data")
    if not isinstance(data, dict) or "name" not in data:
        return None
    return {"name": str(data["name"]), "users": data.get("users"), "events": data.get("events")}


def _shown(model: ServedModel, item: int) -> dict[str, Any]:
    catalogue = model.catalogue
    at = catalogue.items[item]
    return {"item_id": at.item_id, "title": at.title, "category": list(at.category)}
