"""Another model as a target of off-policy evaluation: it decodes the logged requests again.

Each request is asked with the history that the log has until then, its filter, its scene and its exclusions, through
the engine of the service. What a request said besides, such as features of the user, is not logged and counts as
unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from model.errors import RunError
from model.evaluation.rankers import batches_of, encoding_of, history_of
from model.online.logged_lists import ItemNumbers, LoggedList, law_of
from model.online.marginals import Law
from model.online.targets import Drawn, decoding_in
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.engine.baseline_engine import BaselineEngine
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, Job, ListRequest
from service.engine.run_groups import result_of
from service.policies.policies import Policies
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.ranker import Ranker


class ArtifactTarget:
    """The lists that an artefact would make.

    Attributes:
        name: What it is called.
        own_model: It has one.
    """

    own_model = True

    def __init__(self, engine: Engine | BaselineEngine, name: str, policies: Policies | None = None) -> None:
        """Judges an artefact.

        Args:
            engine: The opened artefact.
            name: What the target is called.
            policies: How the lists of each segment are decoded; None: as the log decoded them.
        """
        self.name = name
        self._engine, self._policies = engine, policies
        self._ranker = Ranker.of(engine.artifact.signals, engine.artifact.ranker)

    def decoding(self, segment: str) -> Decoding | None:
        """Returns the decoding of a segment; None: as its lists were decoded.

        Raises:
            LogError: The policies have no such segment.
        """
        return None if self._policies is None else decoding_in(self._policies, segment)

    def of(self, lists: Sequence[LoggedList], numbers: ItemNumbers) -> list[Drawn | None]:
        """Returns what each list would be drawn from; None where history or exclusions are not known.

        Raises:
            RunError: The artefact is too old to say what its lists are drawn from.
        """
        jobs = [self._job(one) for one in lists]
        asked = [place for place, job in enumerate(jobs) if job is not None]
        found: list[Drawn | None] = [None] * len(lists)
        for rows in batches_of([len(jobs[place].request.excluded) for place in asked]):  # type: ignore[union-attr]
            batch = [asked[row] for row in rows]
            results = self._engine.run([job for place in batch if (job := jobs[place]) is not None])
            for place, result in zip(batch, results, strict=True):
                found[place] = self._drawn(lists[place], result_of(result).decoded, numbers)
        return found

    def _job(self, one: LoggedList) -> Job | None:
        engine, history = self._engine, one.history
        excluded = self._excluded(one)
        if history is None or excluded is None:
            return None
        vocabulary, group = engine.artifact.vocabulary, self._ranker.group(one.segment)
        events = vocabulary.events(history.item_ids, history.types, history.times_ms)
        scene = {} if one.request["scene"] is None else {"scene": one.request["scene"]}
        last_ms = history.times_ms[-1] if history.times_ms and vocabulary.has_time else None
        filters = orjson.loads(one.request["filter"] or "{}")
        return Job(
            encode=encoding_of(engine, events),
            request=ListRequest(
                context=vocabulary.context.encode(scene),
                gap_ms=vocabulary.context.gap(last_ms, one.request["time_ms"]),
                decoding=self._decoding(one),
                k=one.request["k"],
                filter_id=engine.filter_id(filters),
                excluded=excluded,
                signals=self._signals(events, group),
                group=group,
            ),
        )

    def _signals(self, events: EventArrays, group: int) -> ItemValues:
        if not self._ranker.uses_history(group):
            return NO_VALUES
        has_time = self._engine.artifact.vocabulary.has_time
        return self._ranker.user(history_of(events, self._engine.receptive_field, has_time), group)

    def _decoding(self, one: LoggedList) -> Decoding:
        return self.decoding(one.segment) or one.decoding

    def _excluded(self, one: LoggedList) -> IntArray | None:
        """The items that must not be listed: what the history shows to have been seen, or none.

        The log has their number. Another number says that the request named items, or that the log lacks events.
        """
        if one.history is None:
            return None
        seen = set(one.history.item_ids)
        index = self._engine.artifact.vocabulary.item_index
        known = np.unique(np.array([index[item] for item in seen if item in index], np.int64))
        if not one.request["excluded"]:
            return np.zeros(0, np.int64)
        return known if one.request["excluded"] in (len(seen), len(known)) else None

    def _drawn(self, one: LoggedList, decoded: DecodedList, numbers: ItemNumbers) -> Drawn:
        if decoded.draw is not None:
            items, scores, law = decoded.draw.items, decoded.draw.scores, law_of(self._decoding(one))
        elif self._decoding(one).sampled and decoded.source == "gpt4rec":
            raise RunError(
                "the artefact does not say what its lists are drawn from", where=self.name, fix="export it again"
            )
        else:
            items, scores, law = decoded.items, -np.arange(len(decoded.items), dtype=np.float32), Law(sampled=False)
        ids = self._engine.artifact.catalogue.item_ids
        place = {ids[item]: place for place, item in enumerate(items.tolist())}
        shown = [place.get(item, -1) for item in one.items[: len(one.shown)]]
        known = numbers.of_ids([ids[item] for item in items.tolist()])
        return Drawn(scores, law, known, np.array(shown, np.int64), same=False)
