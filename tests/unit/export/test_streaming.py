"""Streaming over events equals one pass over the whole history; training and serving see the same input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.parity_gate import full_encode
from model.data.dataset import Sequences, sequences
from model.data.split import leave_one_out
from model.network.config import StateDtype
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from model.training.batches import collate, cut
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN, START_TYPE, EventArrays, Vocabulary
from service.engine.decoding import Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob, Job, JobResult, ListRequest
from tests.support.artifacts import random_parts, write_artifact
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

# A stored key may round the other way if two computations differ in the last bit.
TOLERANCE: dict[StateDtype, float] = {"float32": 2e-5, "float16": 5e-3, "int8": 1e-1}
NOTHING = np.zeros(0, np.int64)

CHECKED = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Streamer:
    """An engine that only encodes, and the network behind it."""

    def __init__(self, model: GPT4Rec, engine: Engine) -> None:
        self.model, self.engine = model, engine
        self.dtype: StateDtype = model.config.state_dtype

    def advance(self, rows: Sequence[tuple[EncoderState | None, EventArrays, bool]]) -> list[EncoderState]:
        jobs = [EncodeJob(state=state, events=events, from_start=from_start) for state, events, from_start in rows]
        states = []
        for result in self.engine.encode(jobs):
            assert isinstance(result, EncoderState), result
            states.append(result)
        return states

    def stream(self, events: EventArrays, splits: Sequence[int]) -> EncoderState:
        """The state after the events, taken in pieces that end at `splits`."""
        state: EncoderState | None = None
        borders = [0, *sorted(set(splits)), len(events)]
        for low, high in itertools.pairwise(borders):
            if high > low:
                piece = part(events, low, high)
                state = self.advance([(state, piece, state is None)])[0]
        return state if state is not None else self.advance([(None, events, True)])[0]

    def full(self, events: EventArrays) -> FloatArray:
        vocabulary = self.engine.artifact.vocabulary
        h: FloatArray = full_encode(self.model, vocabulary.with_start(events)).numpy()
        return h

    def assert_equal(self, state: EncoderState, events: EventArrays) -> None:
        np.testing.assert_allclose(state.h, self.full(events), atol=TOLERANCE[self.dtype])


def part(events: EventArrays, low: int, high: int) -> EventArrays:
    return EventArrays(events.item[low:high], events.type[low:high], events.time_ms[low:high])


def history(rng: np.random.Generator, n: int, n_items: int = 40) -> EventArrays:
    """Unknown items, every type, ties in time, and gaps from a millisecond to months."""
    gaps = np.exp(rng.uniform(0, 22, n)).astype(np.int64) * (rng.random(n) > 0.2)
    return EventArrays(
        rng.integers(0, n_items + 1, n), rng.integers(0, 6, n), 1_600_000_000_000 + np.cumsum(gaps, dtype=np.int64)
    )


@pytest.fixture(scope="module", params=["float32", "float16", "int8"])
def streamer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Streamer:
    model = random_network(seed=2, state_dtype=request.param)
    folder = write_artifact(tmp_path_factory.mktemp("artifact"), random_parts(model))
    return Streamer(model, Engine.open(folder, device="cpu", threads=1))


@CHECKED
@given(n=st.integers(0, 150), seed=st.integers(0, 10**6), splits=st.lists(st.integers(1, 149), max_size=12))
def test_streaming_state_equals_full_encode(streamer: Streamer, n: int, seed: int, splits: list[int]) -> None:
    events = history(np.random.default_rng(seed), n)
    state = streamer.stream(events, [split for split in splits if split < n])
    streamer.assert_equal(state, events)
    assert state.n_valid == min(n + 1, streamer.model.config.window)


@CHECKED
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=6), seed=st.integers(0, 10**6))
def test_users_of_one_run_do_not_touch_each_other(streamer: Streamer, lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = [history(rng, n) for n in lengths]
    first = streamer.advance([(None, part(events, 0, len(events) // 2), True) for events in users])
    bases = [state if len(events) // 2 else None for state, events in zip(first, users, strict=True)]
    rest = [
        (base, part(events, len(events) // 2, len(events)), base is None)
        for base, events in zip(bases, users, strict=True)
    ]
    for state, events in zip(streamer.advance(rest), users, strict=True):
        streamer.assert_equal(state, events)


@CHECKED
@given(n=st.integers(0, 60), seed=st.integers(0, 10**6))
def test_a_rebuild_from_the_receptive_field_alone_is_exact_and_carries_on(
    streamer: Streamer, n: int, seed: int
) -> None:
    """How the service encodes a trimmed log: the newest events only, without the start token."""
    field = streamer.engine.receptive_field
    events = history(np.random.default_rng(seed), field + n)
    kept = part(events, n, field + n)
    rebuilt = streamer.advance([(None, kept, False)])[0]
    streamer.assert_equal(rebuilt, events)
    more = history(np.random.default_rng(seed + 1), 5)
    later = replace(more, time_ms=more.time_ms + int(events.time_ms[-1]))
    longer = EventArrays(*(np.concatenate(pair) for pair in zip(arrays(events), arrays(later), strict=True)))
    streamer.assert_equal(streamer.advance([(rebuilt, later, False)])[0], longer)


def arrays(events: EventArrays) -> tuple[IntArray, IntArray, IntArray]:
    return events.item, events.type, events.time_ms


def test_the_event_just_outside_the_receptive_field_does_not_matter(streamer: Streamer) -> None:
    field = streamer.engine.receptive_field
    events = history(np.random.default_rng(5), field + 1)
    item = events.item.copy()
    item[0] = (item[0] + 7) % 40
    np.testing.assert_allclose(
        streamer.full(events), streamer.full(replace(events, item=item)), atol=TOLERANCE[streamer.dtype]
    )


def test_a_late_event_changes_the_state_so_the_log_must_be_encoded_again(streamer: Streamer) -> None:
    """An event that belongs in the middle cannot be appended: order is part of what is encoded."""
    events = history(np.random.default_rng(8), 12)
    late = 6
    rows = [row for row in range(12) if row != late]
    without = EventArrays(events.item[rows], events.type[rows], events.time_ms[rows])
    base = streamer.stream(without, [])
    appended = streamer.advance([(base, part(events, late, late + 1), False)])[0]
    assert np.abs(appended.h - streamer.full(events)).max() > TOLERANCE[streamer.dtype]
    streamer.assert_equal(streamer.stream(events, [late]), events)


def test_a_job_without_new_events_keeps_its_state(streamer: Streamer) -> None:
    state = streamer.stream(history(np.random.default_rng(3), 9), [])
    nothing = EventArrays(NOTHING, NOTHING, NOTHING)
    assert streamer.advance([(state, nothing, False)])[0] is state


def test_a_state_of_another_shape_fails_that_job_alone(streamer: Streamer) -> None:
    good = streamer.stream(history(np.random.default_rng(3), 9), [])
    foreign = replace(good, h=np.zeros(7, np.float32))
    events = history(np.random.default_rng(4), 2)
    context = np.zeros(streamer.model.config.n_slots, np.int64)
    request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=Decoding("greedy"), k=3)
    jobs = [
        Job(encode=EncodeJob(state=s, events=events, from_start=False), request=request) for s in (good, foreign, good)
    ]
    first, second, third = streamer.engine.run(jobs)
    assert isinstance(second, Exception)
    assert isinstance(first, JobResult)
    assert isinstance(third, JobResult)


# ── training and serving ────────────────────────────────────────────────────────────────────────────────


def trained_on(log: Sequences, user: int, vocabulary_start: int) -> EventArrays:
    """The encoder's input for a user's whole history, as the trainer's batches build it."""
    chunks = cut(log, max_length=500, context=8)
    row = int(np.flatnonzero(chunks.user == user)[0])
    batch = collate(chunks, np.array([row]), vocabulary_start)
    n = int(chunks.length[row])
    return EventArrays(batch.item[0, :n].numpy(), batch.type[0, :n].numpy(), batch.time_ms[0, :n].numpy())


def test_training_and_serving_see_the_same_features() -> None:
    """The trainer's input for a history equals the service's for the same stored events, start token included."""
    dataset = tiny_dataset(users=12, items=20, seed=4)
    log = sequences(dataset)
    vocabulary = Vocabulary.of(log.item_ids, random_parts().context, has_time=True)
    by_user = dataset.events.partition_by("user_id", maintain_order=True)
    for user, frame in enumerate(by_user):
        in_training = trained_on(log, user, vocabulary.start_item)
        stored = frame.head(len(frame) - 1)  # the last event is only ever a target
        served = vocabulary.with_start(
            vocabulary.events(
                stored["item_id"].to_list(), stored["event_type"].to_list(), stored["timestamp"].to_list()
            )
        )
        for name in ("item", "type", "time_ms"):
            np.testing.assert_array_equal(getattr(in_training, name), getattr(served, name), err_msg=name)
        assert served.type[0] == START_TYPE


def test_evaluation_gives_the_encoder_what_the_service_gives_it() -> None:
    log = sequences(tiny_dataset(users=12, items=20, seed=4))
    split = leave_one_out(log)
    vocabulary = Vocabulary.of(log.item_ids, random_parts().context, has_time=True)
    rows = split.history(split.test, 0)
    events = EventArrays(log.item[rows], log.type[rows], log.time_ms[rows])
    whole = encoder_input(events, 10_000, vocabulary)
    assert whole.item[0] == vocabulary.start_item
    np.testing.assert_array_equal(whole.item[1:], events.item)
    trimmed = encoder_input(events, 3, vocabulary)
    np.testing.assert_array_equal(trimmed.item, events.item[-3:])
