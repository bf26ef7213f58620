"""Histories into hidden states with an encoder that carries none from event to event: each is encoded whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Array
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.common.errors import ModelError
from service.engine.encode.encoder import Run
from service.engine.encoder_state import EncoderState, StateShape
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import Placement, Values
from service.engine.run_groups import run_groups


class HistoryEncoder:
    """`run` makes one run of the encoder graph. Safe to call from several threads.

    Its states have a hidden state and nothing else, so that an event cannot be added to one. With `asks` the graph has
    a hidden event behind the history, which is the one asked for.
    """

    def __init__(self, artifact: Artifact, at: Placement, run: Run, *, asks: bool) -> None:
        self.shape = StateShape(0, 0, 0, artifact.network["d_model"], "float16")
        self.longest = artifact.receptive_field
        self._vocabulary = artifact.vocabulary
        self._at, self._run, self._asks = at, run, asks
        self._fixed: dict[int, Values] = {}

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """A state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_key, self._encode)

    def _encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState]:
        """Jobs without new events keep their base."""
        known = [self._known(job) for job in jobs]
        rows = [row for row, state in enumerate(known) if state is None]
        if rows:
            hidden = self._step([self._events(jobs[row]) for row in rows])
            for row, h in zip(rows, hidden, strict=True):
                # A copy: a view of one row would keep all rows of the batch in memory.
                known[row] = EncoderState.of_hidden(h.copy())
        return [state for state in known if state is not None]

    def _known(self, job: EncodeJob) -> EncoderState | None:
        if job.state is None:
            return None
        if len(job.events) or job.state.shape != self.shape:
            raise ModelError("this model encodes histories whole: an event cannot be added to a state")
        return job.state

    def _events(self, job: EncodeJob) -> EventArrays:
        events = job.events
        if job.from_start or not len(events):
            events = self._vocabulary.with_start(events)
        return events.after(max(0, len(events) - self.longest))

    def _step(self, events: Sequence[EventArrays]) -> Array:
        """[rows, d] h after each of the histories (1 … longest events each)."""
        batch = self._at.rows(len(events))
        count = np.ones(batch, np.int64)
        count[: len(events)] = [len(e) for e in events]
        count += self._asks
        n = min(self._at.rows(int(count.max())), self.longest + self._asks)
        padded = {name: np.zeros((batch, n), np.int64) for name in ("item", "type", "time_ms")}
        for row, e in enumerate(events):
            padded["item"][row, : len(e)] = e.item
            padded["type"][row, : len(e)] = e.type
            padded["time_ms"][row, : len(e)] = e.time_ms
        previous = np.concatenate([padded["time_ms"][:, :1], padded["time_ms"][:, :-1]], axis=1)
        place = np.arange(n)
        feeds = {
            **padded,
            "previous_ms": previous,
            "last_row": np.arange(batch) * n + count - 1,
            "valid": (place < count[:, None])[:, None],
            "asked": (place == count[:, None] - 1)[:, :, None],
        }
        shape = (batch, n) if self._at.pad else None  # else there are too many to keep bindings for
        out = self._run(feeds, self._positions(n), shape, len(events))
        if not np.isfinite(out["h"]).all():
            raise ModelError("the encoder's output is not finite")
        return out["h"]

    def _positions(self, n: int) -> Values:
        """Two threads may make it twice: it is the same."""
        if n not in self._fixed:
            self._fixed[n] = {"position": self._at.put(np.arange(n))}
        return self._fixed[n]
