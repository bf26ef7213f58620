"""The artefact as a peer serves it: bodies in, answers out, through the engine of this repository.

Every peer with the exported graphs calls only these functions, so that the peers differ in nothing but the server
around the same two runs: same graphs, same onnxruntime options, same beam, same constraints.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from loadtests.peers.sizes import BEAM
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob, EncodeJob, ListRequest
from service.signals.ranker import Ranker as Signals
from service.signals.user_history import UserHistory

Body = Mapping[str, Any]
Answer = dict[str, Any]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranker:
    """Lists of the best `k` items by the fused score: beam search at the width of the artefact, seen items left out.

    Attributes:
        engine: Runs the graphs.
        signals: The signals of the artefact, with their weights.
    """

    engine: Engine
    signals: Signals

    @classmethod
    def open(cls, artifact: str, threads: int) -> Ranker:
        """Loads and warms up an artefact on the CPU; `threads` of one engine run."""
        engine = Engine.open(artifact, device="cpu", threads=threads)
        engine.warm_up()
        return cls(engine, Signals.of(engine.artifact.signals, engine.artifact.ranker))

    def from_history(self, bodies: Sequence[Body]) -> list[Answer]:
        """Encodes and decodes: `items`, `types` (names) and `times_ms` [n] of each body, oldest first."""
        vocabulary = self.engine.artifact.vocabulary
        jobs = []
        for body in bodies:
            events = vocabulary.events(body["items"], body["types"], body["times_ms"])
            jobs.append(EncodeJob(events=events, from_start=True))
        states = [_good(state) for state in self.engine.encode(jobs)]
        seen = [job.events.item for job in jobs]
        last = [body["times_ms"][-1] for body in bodies]
        k = [body["k"] for body in bodies]
        return self._decode([state.h for state in states], seen, last, k)

    def from_h(self, bodies: Sequence[Body]) -> list[Answer]:
        """Decodes: `h` (base64 of float32 [d]), `seen` [n] item ids, oldest first, and `last_ms` of each body."""
        index = self.engine.artifact.vocabulary.item_index
        h = [np.frombuffer(base64.b64decode(body["h"]), np.float32) for body in bodies]
        seen = [np.array([index[item] for item in body["seen"]], np.int64) for body in bodies]
        return self._decode(h, seen, [body["last_ms"] for body in bodies], [body["k"] for body in bodies])

    def _decode(
        self,
        h: Sequence[npt.NDArray[np.float32]],
        seen: Sequence[npt.NDArray[np.int64]],
        last_ms: Sequence[int],
        k: Sequence[int],
    ) -> list[Answer]:
        context = self.engine.artifact.vocabulary.context
        now_ms, unknown = int(time.time() * 1000.0), context.encode({})
        jobs = [
            DecodeJob(
                h=h[row],
                request=ListRequest(
                    context=unknown,
                    gap_ms=context.gap(last_ms[row], now_ms),
                    decoding=BEAM,
                    k=k[row],
                    excluded=np.unique(seen[row]),
                    signals=self.signals.user(UserHistory.of_items(seen[row])),
                ),
            )
            for row in range(len(h))
        ]
        ids = self.engine.artifact.catalogue.item_ids
        return [
            {
                "items": [
                    {"item_id": ids[item], "score": score}
                    for item, score in zip(listed.items.tolist(), listed.scores.tolist(), strict=True)
                ]
            }
            for listed in map(_good, self.engine.decode(jobs))
        ]


def _good(result: T | Exception) -> T:
    if isinstance(result, Exception):
        raise result
    return result
