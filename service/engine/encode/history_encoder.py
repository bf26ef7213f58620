"""Hidden states from encoders that carry no state from event to event: each history is encoded whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact import graph_names as names
from service.artifact.array_types import Array, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.common.errors import ModelError
from service.engine.encode.encoder import RunEncoder
from service.engine.encode.padded_events import padded_events, padded_queries
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import Values
from service.engine.placement import Placement
from service.engine.run_groups import run_groups


class HistoryEncoder:
    """Encodes whole histories. Safe to call from several threads.

    Its states hold a hidden state and nothing else, so that no event can be added to them.
    """

    def __init__(self, artifact: Artifact, placement: Placement, run: RunEncoder, *, masked: bool) -> None:
        """Prepares the inputs.

        Args:
            artifact: The artefact whose graph `run` runs.
            placement: Where it runs.
            run: Makes one run of the encoder graph.
            masked: Whether the graph was trained on the task "masked" and predicts a hidden event behind the history.
        """
        self.layout = artifact.state_layout
        self.longest = artifact.receptive_field
        self._vocabulary = artifact.vocabulary
        self._placement, self._run = placement, run
        self._hidden_events = int(masked)
        network = artifact.network
        self._slots, self._heads, self._window = network["n_slots"], network["heads"], network["window"]
        self._prefix = int(network["encoder"] == "prefix")
        self._fixed: dict[int, Values] = {}

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """Returns a state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_key, self._encode)

    def _encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState]:
        """Jobs without new events keep their base state."""
        states = [self._base(job) for job in jobs]
        rows = [row for row, state in enumerate(states) if state is None]
        if rows:
            hidden = self._step([self._events(jobs[row]) for row in rows], [jobs[row].context for row in rows])
            for row, h in zip(rows, hidden, strict=True):
                # A copy: a view of one row would keep all rows of the batch in memory.
                states[row] = EncoderState.of_hidden(h.copy())
        return [state for state in states if state is not None]

    def _base(self, job: EncodeJob) -> EncoderState | None:
        if job.state is None:
            return None
        if len(job.events) or not job.state.fits(self.layout):
            raise ModelError("this model encodes whole histories: no event can be added to a state")
        return job.state

    def _events(self, job: EncodeJob) -> EventArrays:
        events = job.events
        if job.from_start or not len(events):
            events = self._vocabulary.with_start(events)
        return events.after(max(0, len(events) - self.longest))

    def _step(self, events: Sequence[EventArrays], contexts: Sequence[IntArray | None]) -> Array:
        """[rows, d] h after each of the histories (1 … longest events each)."""
        batch = self._placement.rows(len(events))
        longest = max(len(e) for e in events) + self._hidden_events
        n = min(self._placement.rows(longest), self.longest + self._hidden_events)
        queries = self._vocabulary.query_buckets > 0
        feeds = history_feeds(events, batch, n, hidden_events=self._hidden_events, queries=queries)
        feeds[names.CONTEXT] = np.zeros((batch, self._slots), np.int64)
        for row, context in enumerate(contexts):
            if context is not None:
                feeds[names.CONTEXT][row] = context
        shape = (
            (batch, n) if self._placement.pad else None
        )  # without padding there are too many shapes to keep bindings
        out = self._run(feeds, self._positions(n), shape, len(events))
        if not np.isfinite(out[names.HIDDEN]).all():
            raise ModelError("the encoder's output is not finite")
        return out[names.HIDDEN]

    def _positions(self, n: int) -> Values:
        if n not in self._fixed:  # two threads may both make them: they are equal
            placement, slots = self._placement, n + self._prefix
            slot = np.arange(slots)
            distance = slot[:, None] - slot
            near = (distance >= 0) & ((distance <= self._window) | (slot < self._prefix))  # none is too far to see it
            self._fixed[n] = {
                names.POSITION: placement.put(np.arange(n)),
                names.NEAR: placement.put(near[None]),
                names.SLOT: placement.put(slot.reshape(1, 1, -1)),
                names.SCORES: placement.host(np.array([-1, self._heads, slots, slots], np.int64)),
                names.FOLDED: placement.host(np.array([-1, self._heads * slots, slots], np.int64)),
            }
        return self._fixed[n]


def history_feeds(
    events: Sequence[EventArrays], batch: int, n: int, *, hidden_events: int, queries: bool
) -> dict[str, Array]:
    """Returns the inputs of a graph over whole histories that depend on the rows.

    Args:
        events: The histories, of 1 event or more each.
        batch: Rows of the run; those without a history have one event.
        n: Length of the rows.
        hidden_events: 1 for encoders that predict a hidden event behind the history, else 0.
        queries: Whether the graph reads queries.
    """
    count = np.ones(batch, np.int64)
    count[: len(events)] = [len(e) for e in events]
    count += hidden_events
    padded = padded_events(events, batch, n)
    time_ms, position = padded[names.TIME_MS], np.arange(n)
    feeds: dict[str, Array] = {
        **padded,
        names.PREVIOUS_MS: np.concatenate([time_ms[:, :1], time_ms[:, :-1]], axis=1),
        names.LAST_ROW: np.arange(batch) * n + count - 1,
        names.VALID: (position < count[:, None])[:, None],
        names.ASKED: (position == count[:, None] - 1)[:, :, None],
    }
    if queries:
        feeds[names.QUERY] = padded_queries(events, batch, n)
    return feeds
