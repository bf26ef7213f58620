"""Histories into states, in encoder runs grouped by length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.common.errors import ModelError
from service.engine.encode.window_inputs import Windows
from service.engine.encoder_state import EncoderState, StateShape
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import Placement, Values
from service.engine.run_groups import run_groups

# (feeds, values that stay, shape, rows) → outputs by name
Run = Callable[[Mapping[str, Any], Values, Hashable, int], dict[str, npt.NDArray[Any]]]

CHUNK = 64  # a longer run of events is encoded in pieces, so its cost stays linear


class Encoder:
    """`run` makes one run of the encoder graph. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, at: Placement, run: Run) -> None:
        n = artifact.network
        self.shape = StateShape(n["layers"], n["window"], n["d_head"], n["d_model"], n["state_dtype"])
        self._windows = Windows(self.shape, n["heads"], at)
        self._vocabulary = artifact.vocabulary
        self._at, self._run = at, run
        self._only_start: EncoderState | None = None

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        """A state for every job, in order. A job that cannot be run gets its own error and harms no other."""
        return run_groups(jobs, lambda job: job.run_key, self._encode)

    def _encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState]:
        """States after every job's events; a job without new events keeps its base."""
        states = [job.state for job in jobs]
        events = [self._events(job) for job in jobs]
        done = 0
        while rows := [row for row, e in enumerate(events) if len(e) > done]:
            pieces = [
                EventArrays(e.item[done : done + CHUNK], e.type[done : done + CHUNK], e.time_ms[done : done + CHUNK])
                for e in (events[row] for row in rows)
            ]
            for row, state in zip(rows, self._step([states[row] for row in rows], pieces), strict=True):
                states[row] = state
            done += CHUNK
        return [self._start_state() if state is None else state for state in states]

    def _events(self, job: EncodeJob) -> EventArrays:
        """New events of a job, the start token included where one is due."""
        events = job.events
        if job.state is not None:
            if job.state.shape != self.shape:
                raise ModelError("the state is another model's")
            return events
        if len(events) == 0:
            return events  # the start token alone: one state for all
        return self._vocabulary.with_start(events) if job.from_start else events

    def _start_state(self) -> EncoderState:
        """The state after the start token alone. Two threads may make it twice: it is the same state."""
        if self._only_start is None:
            nothing = np.zeros(0, np.int64)
            start = self._vocabulary.with_start(EventArrays(nothing, nothing, nothing))
            self._only_start = self._step([None], [start])[0]
        return self._only_start

    def _step(self, states: Sequence[EncoderState | None], events: Sequence[EventArrays]) -> list[EncoderState]:
        """One encoder run: every state advanced by its events (1 … CHUNK each, right-padded)."""
        s, batch = self.shape, self._at.rows(len(states))
        n_new = np.ones(batch, np.int64)
        n_new[: len(events)] = [len(e) for e in events]
        longest = self._at.rows(int(n_new.max()))
        kv = np.zeros((batch, s.layers, 2, s.window, s.head_dim), np.dtype(s.dtype))
        past, n_valid = np.zeros((batch, s.window), np.int64), np.zeros(batch, np.int64)
        scale = np.zeros((batch, s.layers, 2, s.window), np.float32)
        for row, state in enumerate(states):
            if state is not None:
                kv[row], past[row], n_valid[row] = state.kv, state.time_ms, state.n_valid
                if s.dtype == "int8":
                    scale[row] = state.scale
        padded = {name: np.zeros((batch, longest), np.int64) for name in ("item", "type", "time_ms")}
        for row, e in enumerate(events):
            padded["item"][row, : len(e)] = e.item
            padded["type"][row, : len(e)] = e.type
            padded["time_ms"][row, : len(e)] = e.time_ms
        feeds = {"kv": kv, "past_time_ms": past, **padded}
        feeds |= self._windows.feeds(past, n_valid, padded["time_ms"], n_new)
        if s.dtype == "int8":
            feeds["scale"] = scale
        shape = (batch, longest) if self._at.pad else None  # else there are too many to keep bindings for
        out = self._run(feeds, self._windows.fixed(longest), shape, len(states))
        if not np.isfinite(out["h"]).all():
            raise ModelError("the encoder's output is not finite")
        n_next = np.minimum(s.window, n_valid + n_new).tolist()
        scales = out.get("next_scale", np.zeros((batch, 0), np.float32))
        # Copies: a view of one row would keep all rows of the batch in memory.
        return [
            EncoderState(
                out["next_kv"][row].copy(),
                scales[row].copy(),
                out["next_time_ms"][row].copy(),
                n_next[row],
                out["h"][row].copy(),
            )
            for row in range(len(states))
        ]
