"""The model behind the service: jobs in, rankings and states out.

Synchronous, and called from one worker thread. Histories are encoded in runs grouped by length, lists are decoded
in runs grouped by width; a row's answer does not depend on the rows it shares a run with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from export.artifact import Artifact, ArtifactFileError
from export.features import GAP_UNKNOWN, EventArrays
from export.noise import node_hash, seed_hash
from service.decoding import WIDTH_BUCKETS, Decoding
from service.errors import ArtifactError, ModelError
from service.filters import EVERYTHING, Filters, FilterTable
from service.sessions import Device, GraphSession, choose_device
from service.state import EncoderState, StateShape

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

CHUNK = 64  # a longer run of events is encoded in pieces, so its cost stays linear
EXCLUDED_BUCKETS = (1, 16, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Job:
    """One row of work: bring a state up to date, then decode a list from it.

    `state` is the base, None where nothing was encoded yet (the state of an empty history is none: the start token
    takes the first event's time); `item`, `type`, `time_ms` [n] are the events after it;
    `from_start` puts the start token before them (only without a base). `context` [slots] and `gap_ms` come from
    `export.features`. `k` = 0 encodes without decoding. `allowed` is a number from `Engine.filter_id`, `excluded`
    [m] item indices. `width` overrides the decoding's own width.
    """

    state: EncoderState | None
    item: IntArray
    type: IntArray
    time_ms: IntArray
    from_start: bool
    context: IntArray
    gap_ms: int
    decoding: Decoding
    k: int
    allowed: int
    excluded: IntArray
    seed: int
    width: int | None = None

    @property
    def run_width(self) -> int:
        return self.decoding.width(self.k) if self.width is None else self.width


@dataclass(frozen=True, slots=True)
class Ranking:
    """`items` [n ≤ k] catalogue indices best first with `scores` [n] (blended log-probabilities), and the state after
    the job's events. Fewer than k only where fewer are allowed. `log_probs` [n] are the paths' own."""

    items: IntArray
    scores: FloatArray
    state: EncoderState
    log_probs: FloatArray


class Engine:
    """An artefact on a device. `on_graph`, where it is set, is told of every run: graph, rows, seconds.

    Raises ArtifactError for an artefact that does not fit, StartupError where the device cannot be used.
    """

    def __init__(self, artifact: Artifact, *, device: Device = "auto", threads: int | None = None) -> None:
        self.artifact = artifact
        chosen = choose_device(device)
        self._encoder = GraphSession(artifact.folder / "encoder.onnx", chosen, threads)
        self._decoder = GraphSession(artifact.folder / "decoder.onnx", chosen, threads)
        network = artifact.network
        self.state_shape = StateShape(
            network["layers"],
            network["window"],
            network["d_head"],
            network["d_model"],
            network["state_dtype"],
        )
        self._quantised = network["state_dtype"] == "int8"
        self._trie = artifact.trie
        self._filters = FilterTable(artifact.trie, artifact.catalogue)
        half = self._decoder.inputs["item_table"] == "tensor(float16)"
        self._keep_catalogue(artifact.item_table.astype(np.float16 if half else np.float32))
        self._only_start: EncoderState | None = None
        self.on_graph: Callable[[str, int, float], None] | None = None

    @classmethod
    def open(cls, path: Path | str, *, device: Device = "auto", threads: int | None = None) -> Self:
        """Verify the artefact at `path` and load it."""
        try:
            return cls(Artifact.open(path), device=device, threads=threads)
        except ArtifactFileError as error:
            raise ArtifactError(str(error)) from error

    @property
    def model_version(self) -> str:
        return self.artifact.model_version

    @property
    def receptive_field(self) -> int:
        return self.artifact.receptive_field

    def filter_id(self, filters: Filters) -> int:
        """The number of a filter. Thread-safe. Raises ValueError for a field items do not have."""
        return self._filters.id(filters)

    def set_blend(self, blend: float) -> None:
        """Weight of the dense score in the final ranking, 0 … 1; the artefact's own until it is set."""
        self._decoder.keep(blend=np.array([blend], np.float32))

    def close(self) -> None:
        """Nothing is held outside this process; the sessions go with the object."""

    def warm_up(self) -> None:
        """One run of every width and of the encoder; raises where any of them fails."""
        nothing = np.zeros(0, np.int64)
        context = np.zeros(self.artifact.network["n_slots"], np.int64)
        base = Job(None, nothing, nothing, nothing, True, context, GAP_UNKNOWN, Decoding("greedy"), 1, 0, nothing, 0)
        events = np.full(self.receptive_field, self.artifact.vocabulary.unknown_item, np.int64)
        long = replace(base, item=events, type=np.zeros_like(events), time_ms=np.zeros_like(events))
        for job in [long, *(replace(base, width=width) for width in WIDTH_BUCKETS)]:
            if isinstance(result := self.run([job])[0], Exception):
                raise result

    def run(self, jobs: Sequence[Job]) -> list[Ranking | Exception]:
        """A result for every job, in order. A job that cannot be run gets its own error and harms no other."""
        results: list[Ranking | Exception] = [ModelError("not run")] * len(jobs)
        states: dict[int, EncoderState] = {}

        def encode(rows: list[int]) -> None:
            states.update(zip(rows, self._encode([jobs[row] for row in rows]), strict=True))

        def decode(rows: list[int]) -> None:
            batch = [(jobs[row], states[row]) for row in rows]
            for row, ranking in zip(rows, self._decode(batch), strict=True):
                results[row] = ranking

        def fail(row: int, error: Exception) -> None:
            results[row] = error if isinstance(error, ModelError) else ModelError(f"bad job: {error}")

        _run_groups(range(len(jobs)), lambda row: _length_bucket(jobs[row]), encode, fail)
        _run_groups(states, lambda row: jobs[row].run_width if jobs[row].k else 0, decode, fail)
        return results

    def _encode(self, jobs: Sequence[Job]) -> list[EncoderState]:
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

    def _events(self, job: Job) -> EventArrays:
        """New events of a job, the start token included where one is due."""
        events = EventArrays(job.item, job.type, job.time_ms)
        if job.state is not None:
            if job.state.shape != self.state_shape:
                raise ModelError("the state is another model's")
            return events
        if len(events) == 0:
            return events  # the start token alone: one state for all
        return self.artifact.vocabulary.with_start(events) if job.from_start else events

    def _start_state(self) -> EncoderState:
        """The state after the start token alone: what a user without history has."""
        if self._only_start is None:
            nothing = np.zeros(0, np.int64)
            start = self.artifact.vocabulary.with_start(EventArrays(nothing, nothing, nothing))
            self._only_start = self._step([None], [start])[0]
        return self._only_start

    def _step(self, states: Sequence[EncoderState | None], events: Sequence[EventArrays]) -> list[EncoderState]:
        """One encoder run: every state advanced by its events (1 … CHUNK each, right-padded)."""
        s, batch = self.state_shape, len(states)
        n_new = np.array([len(e) for e in events], np.int64)
        kv = np.zeros((batch, s.layers, 2, s.window, s.head_dim), np.dtype(s.dtype))
        past, n_valid = np.zeros((batch, s.window), np.int64), np.zeros(batch, np.int64)
        scale = np.zeros((batch, s.layers, 2, s.window), np.float32)
        for row, state in enumerate(states):
            if state is not None:
                kv[row], past[row], n_valid[row] = state.kv, state.time_ms, state.n_valid
                if self._quantised:
                    scale[row] = state.scale
        padded = {name: np.zeros((batch, n_new.max()), np.int64) for name in ("item", "type", "time_ms")}
        for row, e in enumerate(events):
            padded["item"][row, : len(e)] = e.item
            padded["type"][row, : len(e)] = e.type
            padded["time_ms"][row, : len(e)] = e.time_ms
        feeds = {"kv": kv, "past_time_ms": past, "n_valid": n_valid, "n_new": n_new, **padded}
        if self._quantised:
            feeds["scale"] = scale
        out = dict(zip(self._encoder.outputs, self._timed("encoder", self._encoder, feeds, batch), strict=True))
        if not np.isfinite(out["h"]).all():
            raise ModelError("the encoder's output is not finite")
        scales = out.get("next_scale", np.zeros((batch, 0), np.float32))
        return [
            EncoderState(
                out["next_kv"][row],
                scales[row],
                out["next_time_ms"][row],
                int(out["next_n_valid"][row]),
                out["h"][row],
            )
            for row in range(batch)
        ]

    def _decode(self, batch: Sequence[tuple[Job, EncoderState]]) -> list[Ranking]:
        """One decoder run for jobs of one width; width 0 is for jobs that only encode."""
        jobs = [job for job, _ in batch]
        width = jobs[0].run_width if jobs[0].k else 0
        if width == 0:
            nothing, no_scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
            return [Ranking(nothing, no_scores, state, no_scores) for _, state in batch]
        if any(job.k > width for job in jobs):
            raise ModelError(f"a beam of {width} cannot hold the {max(job.k for job in jobs)} items asked for")
        feeds: dict[str, Any] = {
            "h": np.stack([state.h for _, state in batch]),
            "context": np.stack([job.context for job in jobs]),
            "gap_ms": np.array([job.gap_ms for job in jobs], np.int64),
            "inverse_temperature": np.array([j.decoding.inverse_temperature for j in jobs], np.float32),
            "top_p": np.array([job.decoding.nucleus for job in jobs], np.float32),
            "sampled": np.array([job.decoding.sampled for job in jobs], np.float32),
            "seed": np.array([seed_hash(job.seed) for job in jobs], np.int64),
            **self._keep_feeds(width),
            **self._mask_feeds(jobs),
        }
        item, score, log_prob = self._timed("decoder", self._decoder, feeds, len(jobs))
        rankings = []
        for row, (job, state) in enumerate(batch):
            n = min(job.k, int((item[row] >= 0).sum()))
            # A node whose score is not a number is never listed: the list would only look too short.
            if not (np.isfinite(score[row, :n]).all() and np.isfinite(log_prob[row]).all()):
                raise ModelError("the decoder's scores are not finite")
            rankings.append(Ranking(item[row, :n], score[row, :n], state, log_prob[row, :n]))
        return rankings

    def _timed(self, name: str, session: GraphSession, feeds: Mapping[str, Any], rows: int) -> list[npt.NDArray[Any]]:
        started = time.perf_counter()
        out = session.run(feeds)
        if self.on_graph is not None:
            self.on_graph(name, rows, time.perf_counter() - started)
        return out

    def _keep_feeds(self, width: int) -> dict[str, IntArray]:
        """How many nodes each level can keep: the width, or all children where there are fewer."""
        feeds, kept = {}, 1
        for level, branching in enumerate(self._trie.branching):
            kept = min(width, kept * (branching + 1))
            feeds[f"keep_{level}"] = np.array([kept], np.int64)
        return feeds

    def _mask_feeds(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Filters of the batch stacked without repeats, and every job's closed nodes padded to a bucket."""
        numbers = sorted({job.allowed for job in jobs})
        masks = {number: self._filters.mask(number) for number in numbers}
        closed = [self._trie.closed_nodes(masks[job.allowed].counts, self._known(job.excluded)) for job in jobs]
        most = max((len(nodes) for levels in closed for nodes in levels), default=0)
        bucket = next((b for b in EXCLUDED_BUCKETS if b >= most), most)
        excluded = np.full((len(jobs), self._trie.levels, bucket), -1, np.int64)
        for row, levels in enumerate(closed):
            for level, nodes in enumerate(levels):
                excluded[row, level, : len(nodes)] = nodes
        feeds: dict[str, Any] = {
            "filter": np.array([numbers.index(job.allowed) for job in jobs], np.int64),
            "excluded": excluded,
        }
        if numbers != [EVERYTHING]:
            for level in range(self._trie.levels):
                feeds[f"node_ok_{level}"] = np.stack([masks[number].node_ok[level] for number in numbers])
        return feeds

    def _known(self, items: IntArray) -> IntArray:
        return items[(items >= 0) & (items < self._trie.n_items)]

    def _keep_catalogue(self, item_table: npt.NDArray[Any]) -> None:
        trie, everything = self._trie, self._filters.mask(EVERYTHING)
        self._encoder.keep(item_table=item_table)
        self._decoder.keep(
            item_table=item_table,
            leaf_item=trie.leaf_item,
        )
        self.set_blend(float(self.artifact.manifest["blend"]))
        for level in range(trie.levels):
            n_nodes = trie.n_nodes[level]
            arrays: dict[str, npt.NDArray[Any]] = {
                f"first_child_{level}": trie.first_child[level],
                f"token_{level}": trie.token[level],
                f"parent_{level}": trie.parent[level],
                f"node_hash_{level}": node_hash(level, n_nodes),
                f"slots_{level}": np.arange(trie.branching[level] + 1, dtype=np.int64),
                f"node_ok_{level}": everything.node_ok[level][None],
                f"n_nodes_{level}": np.array([n_nodes], np.int64),
            }
            self._decoder.keep(**arrays)


def _length_bucket(job: Job) -> int:
    """Jobs whose event counts share a power of two are encoded together; 0 needs no run."""
    return len(job.item).bit_length()


def _run_groups(
    rows: Mapping[int, Any] | Sequence[int],
    key: Callable[[int], int],
    work: Callable[[list[int]], None],
    fail: Callable[[int, Exception], None],
) -> None:
    """Do the work by groups of equal key; where a group fails, row by row, so that only the culprits fail."""
    for _, group in itertools.groupby(sorted(rows, key=key), key):
        members = list(group)
        try:
            work(members)
        except Exception as error:
            if len(members) == 1:
                fail(members[0], error)
                continue
            for row in members:
                try:
                    work([row])
                except Exception as alone:
                    fail(row, alone)
