"""What the engine is asked and what it answers: rows of work in, states and lists out."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact.array_types import FloatArray, IntArray
from service.engine.decoding import Decoding, dense_width
from service.engine.encoder_state import EncoderState


def encode_key(events: int) -> int:
    """Jobs whose event counts share a power of two are encoded together; 0 needs no run."""
    return events.bit_length()


def decode_key(width: int, decoding: Decoding, k: int) -> tuple[int, bool, int]:
    """Lists of one beam width and one number of dense candidates, where they join, are decoded together; sampled ones
    have a graph of their own."""
    return width, decoding.sampled, dense_width(k, width, sampled=decoding.sampled)


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Bring a state up to date.

    `state` is the base, None where nothing was encoded yet (the state of an empty history is none: the start token
    takes the first event's time); `item`, `type`, `time_ms` [n] are the events after it; `from_start` puts the start
    token before them (only without a base). Without a base and without events the result is the state after the
    start token alone: what a user without history has.
    """

    state: EncoderState | None
    item: IntArray
    type: IntArray
    time_ms: IntArray
    from_start: bool

    @property
    def run_key(self) -> int:
        return encode_key(len(self.item))


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Decode one list from a hidden state.

    `h` [d] float32; `context` [slots] and `gap_ms` come from `service.artifact.features`; `k` ≥ 1 items are wanted. `allowed` is
    a number from `Engine.filter_id`, `excluded` [m] item indices. `width` overrides the decoding's own width.
    """

    h: FloatArray
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

    @property
    def run_key(self) -> tuple[int, bool, int]:
        return decode_key(self.run_width, self.decoding, self.k)


@dataclass(frozen=True, slots=True)
class DecodedList:
    """`items` [n ≤ k] catalogue indices best first, with `scores` [n] (blended log-probabilities) and `log_probs` [n]
    (the paths' own). Fewer than k only where fewer are allowed."""

    items: IntArray
    scores: FloatArray
    log_probs: FloatArray


@dataclass(frozen=True, slots=True)
class Job:
    """One row of work from events to a list: an `EncodeJob` and the `DecodeJob` from its state. `k` = 0 encodes
    without decoding."""

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

    @property
    def to_encode(self) -> EncodeJob:
        return EncodeJob(self.state, self.item, self.type, self.time_ms, self.from_start)

    def to_decode(self, state: EncoderState) -> DecodeJob:
        return DecodeJob(
            state.h,
            self.context,
            self.gap_ms,
            self.decoding,
            self.k,
            self.allowed,
            self.excluded,
            self.seed,
            self.width,
        )


@dataclass(frozen=True, slots=True)
class JobResult:
    """`DecodedList`, with the state after the job's events."""

    items: IntArray
    scores: FloatArray
    state: EncoderState
    log_probs: FloatArray
