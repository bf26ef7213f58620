"""The network: what each hidden state may depend on, and what it must not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.config import NetworkConfig, StateDtype
from model.network.encoders.base import log_seconds
from model.network.encoders.registry import receptive_field
from model.network.encoders.streaming import Streaming, quantise, rotary, rotate
from model.network.gpt4rec import PERIODS_MS, GPT4Rec, periodic
from service.artifact.features import START_TYPE, ContextVocabulary, EventArrays, Vocabulary
from tests.support.histories import DAY_MS, NOW_MS, random_history, torch_states
from tests.support.networks import random_network

N_ITEMS = 40
TOLERANCE = 2e-5

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def model() -> GPT4Rec:
    return random_network(n_items=N_ITEMS, state_dtype="float32").requires_grad_(False)


def history(seed: int, n: int) -> EventArrays:
    return random_history(np.random.default_rng(seed), n, N_ITEMS)


def changed(events: EventArrays, at: int, seed: int, *, time: bool = True) -> EventArrays:
    """Another item and type at one position, and times moved by an hour from there on."""
    item, kind, time_ms = events.item.copy(), events.type.copy(), events.time_ms.copy()
    item[at] = (item[at] + 1 + seed % (N_ITEMS - 1)) % N_ITEMS
    kind[at] = (kind[at] + 1) % 6
    if time:
        time_ms[at:] += 3_600_000
    return EventArrays(item, kind, time_ms)


# -- what h may see


@given(seeds, st.integers(2, 30), st.data())
@settings(max_examples=25, deadline=None)
def test_a_later_event_never_changes_an_earlier_state(model: GPT4Rec, seed: int, n: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, n - 1))
    events = history(seed, n)
    before, after = torch_states(model, events), torch_states(model, changed(events, at, seed))
    assert np.abs(before[:at] - after[:at]).max() <= TOLERANCE
    assert np.abs(before[at] - after[at]).max() > TOLERANCE


def test_an_event_matters_as_far_as_the_receptive_field_and_no_farther(model: GPT4Rec) -> None:
    reach = model.config.layers * model.config.window
    assert receptive_field(model.config) == reach + 2
    events = history(3, 40)
    last = torch_states(model, events)[-1]

    def effect(distance: int, *, time: bool) -> float:
        other = changed(events, 39 - distance, 1, time=False)
        if time:
            other.time_ms[: 40 - distance] -= DAY_MS
        return float(np.abs(torch_states(model, other)[-1] - last).max())

    assert all(effect(distance, time=False) > 1e-7 for distance in (0, 1, reach // 2, reach))
    assert effect(reach + 1, time=False) == 0.0
    assert effect(reach + 1, time=True) > 0.0, "its time is the gap of the event after it"
    assert all(effect(distance, time=True) == 0.0 for distance in range(reach + 2, 40))


@given(seeds, st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_a_state_knows_no_absolute_position(model: GPT4Rec, seed: int, one: int, other: int) -> None:
    """The same last events behind pasts of different lengths: the same state."""
    recent = history(seed, receptive_field(model.config))
    states = []
    for n in (one, other):
        past = history(seed + 1, n)
        moved = replace(past, time_ms=past.time_ms - 400 * DAY_MS * (1 + n // 10))
        whole = EventArrays(*(np.concatenate(p) for p in zip(parts(moved), parts(recent), strict=True)))
        states.append(torch_states(model, whole)[-1])
    assert np.abs(states[0] - states[1]).max() <= TOLERANCE


def parts(events: EventArrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return events.item, events.type, events.time_ms


@given(seeds, st.integers(0, 200), st.integers(0, 200), st.integers(0, 400))
@settings(max_examples=20, deadline=None)
def test_rotated_products_depend_on_the_distance_alone(seed: int, i: int, j: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 16, generator=generator)
    cos, sin = rotary(801, 16)

    def product(a: int, b: int) -> float:
        return float(rotate(query, cos[a], sin[a]) @ rotate(key, cos[b], sin[b]))

    assert product(i, j) == pytest.approx(product(i + shift, j + shift), abs=2e-3)
    assert product(i, i) == pytest.approx(float(query @ key), abs=1e-4)


@given(seeds, st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_padding_cannot_be_seen(model: GPT4Rec, seed: int, n: int, padding: int) -> None:
    events, garbage = history(seed, n), history(seed + 1, padding)
    padded = EventArrays(*(np.concatenate(p) for p in zip(parts(events), parts(garbage), strict=True)))
    assert np.abs(torch_states(model, padded)[:n] - torch_states(model, events)).max() <= TOLERANCE


def test_unknown_items_keep_their_place_and_look_alike(model: GPT4Rec) -> None:
    vocabulary = Vocabulary({f"i{n}": n for n in range(N_ITEMS)}, ContextVocabulary(), has_time=True)
    times = [NOW_MS, NOW_MS + 5000, NOW_MS + 9000]

    def last(*items: str) -> np.ndarray:
        return np.asarray(torch_states(model, vocabulary.events(items, ["view"] * 3, times))[-1])

    assert (last("i1", "never seen", "i2") == last("i1", "another", "i2")).all()
    assert np.abs(last("i1", "never seen", "i2") - last("i1", "i3", "i2")).max() > TOLERANCE
    assert np.isfinite(last("x", "y", "z")).all()


# -- the start token


def test_the_start_token_carries_neither_type_nor_time(model: GPT4Rec) -> None:
    vocabulary = Vocabulary({f"i{n}": n for n in range(N_ITEMS)}, ContextVocabulary(), has_time=True)
    nothing = EventArrays(*(np.zeros(0, np.int64) for _ in range(3)))
    alone = vocabulary.with_start(nothing)
    assert (alone.item.tolist(), alone.type.tolist()) == ([N_ITEMS + 1], [START_TYPE])
    later = replace(alone, time_ms=alone.time_ms + NOW_MS)
    assert (torch_states(model, alone) == torch_states(model, later)).all()


def test_the_start_token_tells_a_beginning_from_a_trimmed_history(model: GPT4Rec) -> None:
    vocabulary = Vocabulary({f"i{n}": n for n in range(N_ITEMS)}, ContextVocabulary(), has_time=True)
    events = history(0, 5)
    begun = vocabulary.with_start(events)
    assert begun.time_ms[0] == begun.time_ms[1], "the first event's gap stays 0"
    assert np.abs(torch_states(model, begun)[-1] - torch_states(model, events)[-1]).max() > TOLERANCE


# -- time


def test_without_time_no_time_reaches_the_network() -> None:
    model = random_network(n_items=N_ITEMS, has_time=False).requires_grad_(False)
    assert all(block.decay is None for block in cast(Streaming, model.encoder).blocks)
    events = history(1, 12)
    without = replace(events, time_ms=np.zeros(12, np.int64))
    assert (torch_states(model, events) == torch_states(model, without)).all()


def test_a_second_far_from_zero_matters(model: GPT4Rec) -> None:
    """float32 seconds since 1970 resolve 128 s; the network sees single milliseconds of a gap."""
    events = history(1, 6)
    later = replace(events, time_ms=np.concatenate([events.time_ms[:-1], events.time_ms[-1:] + 1000]))
    assert np.abs(torch_states(model, events)[-1] - torch_states(model, later)[-1]).max() > 1e-6
    near, far = torch.tensor([0, 1000, 1001]), torch.tensor([0, 1000, 1001]) + 2**45
    assert torch.equal(log_seconds(near.diff()), log_seconds(far.diff()))


def test_gaps_are_logarithms_of_seconds_and_never_negative() -> None:
    found = log_seconds(torch.tensor([-5000, 0, 1000, 60_000, 40 * DAY_MS]))
    wanted = [0.0, 0.0, math.log(2), math.log(61), math.log(1 + 40 * 86400)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)


@given(st.integers(-(2**44), 2**44))
@settings(max_examples=30, deadline=None)
def test_periodic_time_is_exact_to_the_millisecond(time_ms: int) -> None:
    wanted = []
    for period in PERIODS_MS:
        phase = 2 * math.pi * (time_ms % period) / period
        wanted += [math.sin(phase), math.cos(phase)]
    assert periodic(torch.tensor(time_ms)).tolist() == pytest.approx(wanted, abs=2e-6)


@given(seeds, st.integers(1, 20))
@settings(max_examples=10, deadline=None)
def test_only_differences_and_phases_of_times_matter(model: GPT4Rec, seed: int, n: int) -> None:
    whole_periods = math.lcm(*PERIODS_MS)
    events = history(seed, n)
    moved = replace(events, time_ms=events.time_ms + whole_periods)
    assert (torch_states(model, events) == torch_states(model, moved)).all()


def test_the_older_of_two_equal_events_weighs_less() -> None:
    """Time decay: with a large rate, attention of the last event goes to what is near in time."""
    model = random_network(n_items=N_ITEMS, layers=1, state_dtype="float32").requires_grad_(False)
    events = history(5, 4)

    def effect_of_the_first(gap_ms: int) -> float:
        times = NOW_MS + np.array([0, gap_ms, gap_ms + 1000, gap_ms + 2000])
        first, second = (replace(e, time_ms=times) for e in (events, changed(events, 0, 1, time=False)))
        return float(np.abs(torch_states(model, first)[-1] - torch_states(model, second)[-1]).max())

    assert effect_of_the_first(300 * DAY_MS) < effect_of_the_first(1000)
    with torch.no_grad():
        for block in cast(Streaming, model.encoder).blocks:
            block.decay.fill_(5.0)  # type: ignore[operator]
    assert effect_of_the_first(300 * DAY_MS) < 1e-6


# -- the stored state's precision


@given(seeds, st.floats(1e-6, 1e3))
@settings(max_examples=20, deadline=None)
def test_quantised_vectors_are_near_and_stable(seed: int, size: float) -> None:
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(seed)) * size
    x[0] = 0.0
    assert quantise(x, "float32") is x
    half = quantise(x, "float16")
    assert torch.allclose(half, x.half().float(), rtol=1e-6, atol=0)
    int8 = quantise(x, "int8")
    step = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-8) / 127
    assert ((int8 - x).abs() <= step * 0.501).all()
    assert torch.equal(int8[0], torch.zeros(16))
    assert torch.allclose(quantise(int8, "int8"), int8, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_gradients_pass_through_quantisation(dtype: StateDtype) -> None:
    x = torch.randn(3, 8, requires_grad=True)
    quantise(x, dtype).mul(2.0).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(x.grad, torch.full((3, 8), 2.0))  # type: ignore[arg-type]


# -- items, paths, configuration


@pytest.fixture
def hidden() -> Tensor:
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def test_an_item_is_its_own_vector_and_its_tokens(model: GPT4Rec) -> None:
    table = model.item_table()
    for item in (0, 17, N_ITEMS - 1):
        tokens = [cast(Tensor, model.token[level].weight)[code] for level, code in enumerate(model.codes[item])]
        assert torch.allclose(table[item], model.item.weight[item] + sum(tokens), atol=1e-6)
    assert torch.equal(table[N_ITEMS:], model.item.weight[N_ITEMS:])


def test_teacher_forcing_is_the_same_as_one_step_after_another(model: GPT4Rec, hidden: Tensor) -> None:
    codes = model.codes[:4]
    state = model.begin(hidden)
    for level, logits in enumerate(model.path_logits(hidden, codes)):
        assert torch.allclose(logits, model.level_logits(level, state), atol=1e-5)
        assert logits.shape == (4, model.config.code_sizes[level])
        if level + 1 < model.config.levels:
            state = model.step(level, state, codes[:, level])


def test_dropout_is_off_outside_training(model: GPT4Rec) -> None:
    events = history(2, 10)
    assert (torch_states(model, events) == torch_states(model, events)).all()


def test_codes_must_fit_the_configuration(model: GPT4Rec) -> None:
    with pytest.raises(ValueError, match="codes are"):
        GPT4Rec(model.config, model.codes[:-1])


def test_a_configuration_is_read_back_strictly(model: GPT4Rec) -> None:
    data = model.config.to_json()
    assert NetworkConfig.from_json(data) == model.config
    with pytest.raises(TypeError, match="colour"):
        NetworkConfig.from_json(data | {"colour": "red"})
    with pytest.raises(TypeError, match="n_items"):
        NetworkConfig.from_json({key: value for key, value in data.items() if key != "n_items"})


@pytest.mark.parametrize("content", [0, 3])
def test_items_may_be_given_other_vectors_and_keep_their_tokens(content: int) -> None:
    model = random_network(n_items=8, content=content)
    if model.of_content is not None:
        model.of_content.set_content(torch.ones(8, 3), torch.zeros(8))
    before, rows = model.item_table().detach(), torch.tensor([1, 6])
    vectors = torch.randn(2, model.config.d_model)
    model.set_item_vectors(rows, vectors)
    after = model.item_table().detach()
    torch.testing.assert_close(after[rows], vectors)
    others = torch.tensor([row for row in range(len(after)) if row not in (1, 6)])
    assert torch.equal(after[others], before[others])
