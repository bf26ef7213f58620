"""Hidden states from encoders that carry no state from event to event: each history is encoded whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.common.errors import ModelError
from service.engine.encode.encoder import RunEncoder
from service.engine.encode.history_inputs import HistoryInputs
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
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
        self._inputs = HistoryInputs(artifact, placement, masked=masked)

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
        feeds = self._inputs.of_rows(events, contexts)
        batch, n = feeds[names.ITEM].shape
        shape = (
            (batch, n) if self._placement.pad else None
        )  # without padding there are too many shapes to keep bindings
        out = self._run(feeds, self._inputs.of_length(n), shape, len(events))
        if not np.isfinite(out[names.HIDDEN]).all():
            raise ModelError("the encoder's output is not finite")
        return out[names.HIDDEN]
