"""Encoder states from events, in encoder runs grouped by length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import NO_EVENTS, EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.state_layout import TIME_MS
from service.common.errors import ModelError
from service.engine.encode.padded_events import padded_events, padded_sessions
from service.engine.encode.window_inputs import StepCounts, Windows
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import Values
from service.engine.placement import Placement
from service.engine.run_groups import run_groups

# (feeds, values that stay between runs, shape, rows) → outputs by name
RunEncoder = Callable[[Mapping[str, Any], Values, Hashable, int], dict[str, npt.NDArray[Any]]]

CHUNK = 64  # longer runs of events are encoded in pieces, so that the cost stays linear


class CountInputs(Protocol):
    """Makes the inputs of a graph that follow from numbers of events alone."""

    def fixed(self, events: int) -> Values:
        """Returns the inputs that depend on the number of new events alone."""
        ...

    def feeds(self, past_ms: IntArray, n_valid: IntArray, time_ms: IntArray, n_new: IntArray) -> dict[str, Array]:
        """Returns the inputs that depend on the rows."""
        ...


class Encoder:
    """Brings encoder states up to date, event by event. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, placement: Placement, run: RunEncoder, *, steps: bool) -> None:
        """Prepares the inputs.

        Args:
            artifact: The artefact whose graph `run` runs.
            placement: Where it runs.
            run: Makes one run of the encoder graph.
            steps: Whether the graph was exported from the `step` of an encoder; if not, it is that of GPT4Rec's own
                backbone.
        """
        self.layout = artifact.state_layout
        n = artifact.network
        self._counts: CountInputs = StepCounts() if steps else Windows(n["layers"], n["window"], n["heads"], placement)
        self._vocabulary = artifact.vocabulary
        self._placement, self._run = placement, run
        self._only_start: EncoderState | None = None

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """Returns a state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_key, self._encode)

    def _encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState]:
        """States after every job's events; a job without new events keeps its base state."""
        states = [job.state for job in jobs]
        events = [self._events(job) for job in jobs]
        done = 0
        while rows := [row for row, e in enumerate(events) if len(e) > done]:
            pieces = [events[row].at(slice(done, done + CHUNK)) for row in rows]
            for row, state in zip(rows, self._step([states[row] for row in rows], pieces), strict=True):
                states[row] = state
            done += CHUNK
        return [self._start_state() if state is None else state for state in states]

    def _events(self, job: EncodeJob) -> EventArrays:
        """The new events of a job, with the start token if it has one."""
        events = job.events
        if job.state is not None:
            if not job.state.fits(self.layout):
                raise ModelError("the state has another layout than this model's states: it belongs to another model")
            return events
        if len(events) == 0:
            return events  # the start token alone: one state for all users
        return self._vocabulary.with_start(events) if job.from_start else events

    def _start_state(self) -> EncoderState:
        """The state after the start token alone."""
        if self._only_start is None:  # two threads may both make it: it is the same state
            self._only_start = self._step([None], [self._vocabulary.with_start(NO_EVENTS)])[0]
        return self._only_start

    def _step(self, states: Sequence[EncoderState | None], events: Sequence[EventArrays]) -> list[EncoderState]:
        """One encoder run: every state advanced by its events (1 … CHUNK each, right-padded)."""
        batch = self._placement.rows(len(states))
        n_new = np.ones(batch, np.int64)
        n_new[: len(events)] = [len(e) for e in events]
        longest = self._placement.rows(int(n_new.max()))
        arrays, n_valid = self._batched(states, batch)
        padded = padded_events(events, batch, longest)
        feeds = {names.past_input(name): array for name, array in arrays.items()} | padded
        if self._vocabulary.reads_sessions:
            feeds[names.SESSION] = padded_sessions(events, batch, longest)
        feeds |= self._counts.feeds(arrays[TIME_MS], n_valid, padded[names.TIME_MS], n_new)
        shape = (
            (batch, longest) if self._placement.pad else None
        )  # without padding there are too many shapes to keep bindings
        out = self._run(feeds, self._counts.fixed(longest), shape, len(states))
        if not np.isfinite(out[names.HIDDEN]).all():
            raise ModelError("the encoder's output is not finite")
        n_next = np.minimum(self.layout.window, n_valid + n_new).tolist()
        # Copies: a view of one row would keep all rows of the batch in memory.
        return [
            EncoderState(
                {array.name: out[names.next_output(array.name)][row].copy() for array in self.layout.arrays},
                n_next[row],
                out[names.HIDDEN][row].copy(),
            )
            for row in range(len(states))
        ]

    def _batched(self, states: Sequence[EncoderState | None], batch: int) -> tuple[dict[str, Array], IntArray]:
        """The arrays of the states, [batch, …] each, with zeros where there is no state; and their valid rows."""
        arrays = {a.name: np.zeros((batch, *a.shape), np.dtype(a.dtype)) for a in self.layout.arrays}
        n_valid = np.zeros(batch, np.int64)
        for row, state in enumerate(states):
            if state is not None:
                n_valid[row] = state.n_valid
                for name, array in arrays.items():
                    array[row] = state.arrays[name]
        return arrays, n_valid
