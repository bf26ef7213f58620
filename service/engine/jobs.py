"""What goes into the engine and what comes out: jobs in, states and lists out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.features import EventArrays
from service.engine.candidates import Candidates
from service.engine.decoding import RANKED_MAX, RANKED_WIDTH, Decoding, joined_width, least_candidates
from service.engine.draw import Draw
from service.engine.encoder_state import EncoderState
from service.engine.fallback import Source
from service.signals.item_values import NO_VALUES, SignalSums

# Fixed filter ids: every item in stock, and no item, which all filters share that no item matches.
EVERYTHING, NOTHING = 0, 1

# Width of the beam, whether lists are sampled, candidates that join the beam, and the least number of candidates: what
# is planned for a list. How wide its run is, the artefact says (`service.engine.decoding.search_sizes`).
DecodeKey = tuple[int, bool, int, int]

# Key of the runs that rank given items.
RANKED_KEY: DecodeKey = (RANKED_WIDTH, False, RANKED_MAX, 0)

_NO_ITEMS: IntArray = np.zeros(0, np.int64)


def encode_key(events: int) -> int:
    """Returns the key of the run that encodes this many events.

    Event counts with the same number of binary digits share a run (1, 2–3, 4–7, …). Key 0 needs no run.
    """
    return events.bit_length()


def decode_key(width: int, decoding: Decoding, k: int, pool: int = 0) -> DecodeKey:
    """Returns the key of the run that decodes such a list. Sampled lists have a graph of their own."""
    joined = joined_width(k, width, sampled=decoding.sampled, pool=pool)
    least = least_candidates(decoding, k, width, pool)
    # Fewer than join anyway ask for nothing; so lists of different lengths share a key.
    return width, decoding.sampled, joined, least if decoding.sampled else max(least, min(joined, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """Brings an encoder state up to date.

    Without a base state and without events, the result is the state after the start token alone: the state of a user
    without history.

    Attributes:
        state: The base state. None if nothing has been encoded yet; an empty history has no state either, because the
            start token takes the time of the first event.
        events: The events after the base state, oldest first.
        from_start: Whether the start token goes before the events. Only valid without a base state.
        context: [slots] int64 rows of the user's features, for encoders that read them; None: all unknown.
    """

    state: EncoderState | None = None
    events: EventArrays
    from_start: bool
    context: IntArray | None = None

    @property
    def run_key(self) -> int:
        """Jobs with equal keys can share one encoder run."""
        return encode_key(len(self.events))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """The list to decode, whatever the hidden state.

    Attributes:
        context: [slots] int64, from `service.artifact.features`.
        gap_ms: Milliseconds since the last event, or `GAP_UNKNOWN`.
        decoding: Strategy and parameters.
        k: Number of items, at least 1.
        filter_id: A number from `Engine.filter_id`.
        excluded: [m] int64 item indices that must not be in the list; unknown indices are ignored.
        seed: Seed of the sampled strategies.
        width: Beam width; None leaves it to `decoding`.
        signals: What the user's signals add to the score of each item, weighted and added up; an item that came after
            the export has what its stand-in has.
        weights: Weights of the path's log-probability and of the dense score; None: those of the group.
        group: The group of users whose weights and signals of items rank the list.
        candidates: Whether the list comes with all its candidates, which explain it.
        ranked: [m ≤ RANKED_MAX] items to rank instead of decoding a list, in any order; None decodes one. The list
            holds those of them that the filter allows and that are not excluded.
        pool: A deterministic list goes on behind k to so many items, as far as the run ranks them, so that rules can
            choose; 0: it does not.
    """

    context: IntArray
    gap_ms: int
    decoding: Decoding
    k: int
    filter_id: int = EVERYTHING
    excluded: IntArray = field(default_factory=lambda: _NO_ITEMS)
    seed: int = 0
    width: int | None = None
    signals: SignalSums = NO_VALUES
    weights: tuple[float, float] | None = None
    group: int = 0
    candidates: bool = False
    ranked: IntArray | None = None
    pool: int = 0

    @property
    def length(self) -> int:
        """The longest list that is wanted."""
        drawn = self.decoding.sampled and self.ranked is None
        return self.k if drawn else max(self.k, self.pool)

    @property
    def run_width(self) -> int:
        """Width of the beam, before what the export measured."""
        return self.decoding.width(self.k) if self.width is None else self.width


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """Decodes one list from a hidden state `h` [d] float32."""

    h: FloatArray
    request: ListRequest

    @cached_property
    def run_key(self) -> DecodeKey:
        """Jobs with equal keys can share one decoder run."""
        request = self.request
        if request.ranked is not None:
            return RANKED_KEY
        return decode_key(request.run_width, request.decoding, request.k, request.pool)


@dataclass(frozen=True, slots=True)
class DecodedList:
    """A list of the engine, best first. It is shorter than k only if fewer items are allowed.

    It is longer where the request has a pool.

    Attributes:
        items: [n] int64 catalogue indices.
        scores: [n] float32 fused scores.
        log_probs: [n] float32 log-probabilities of the items' token paths.
        source: What made the list.
        candidates: What it was chosen from, if the request asked for it.
        scorers: The signals that ranked it; empty for those that the model ranks by.
        draw: How it was drawn; None for a deterministic list.
    """

    items: IntArray
    scores: FloatArray
    log_probs: FloatArray
    source: Source = "gpt4rec"
    candidates: Candidates | None = None
    scorers: tuple[str, ...] = ()
    draw: Draw | None = None

    @property
    def log_propensities(self) -> FloatArray | Float64Array | None:
        """[n] log-probability of each item given those above; None for a deterministic list or an unknown law."""
        return None if self.draw is None else self.draw.log_propensities


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Goes from events to a list in one step: an `EncodeJob`, then a `DecodeJob` from its state."""

    encode: EncodeJob
    request: ListRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The state after the events of a `Job`, and the list decoded from it."""

    state: EncoderState
    decoded: DecodedList
