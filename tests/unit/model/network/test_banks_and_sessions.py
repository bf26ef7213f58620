"""A bank of slots, and sessions with horizons: what they compute, by plain loops, and what they show of it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from model.network.encoders.base import Events, log_seconds
from model.network.encoders.hierarchy import HALF_LIVES_S, LEAST_WEIGHT, Hierarchy
from model.network.encoders.memory_bank import BANK, CUT, LARGEST, Bank, MemoryBank
from model.network.encoders.memory_encoder import CHUNK, MemoryEncoder, chunk_of
from model.network.encoders.streaming import Streaming
from model.network.gpt4rec import GPT4Rec
from tests.unit.model.network.test_memories import inputs, network


def attended(encoder: MemoryEncoder, x: Tensor, events: Events) -> Tensor:
    """What the attention blocks make of one whole history [1, T, d], in one chunk."""
    return encoder.attend(x, chunk_of(events, 0, x.shape[1], encoder.c.window), encoder.empty(x))[0]


@pytest.mark.parametrize("name", ["memory_bank", "hierarchy"])
def test_the_window_beside_a_memory_is_that_of_the_default_encoder(name: str) -> None:
    model = network(name)
    encoder = cast("MemoryEncoder", model.encoder)
    x, events = inputs(model, 30)
    mask, elapsed, rope = Streaming(model.config).geometry(events.time_ms, x)
    want = cast("Tensor", encoder.blocks[0](x, mask[None], elapsed, rope))
    assert torch.allclose(attended(encoder, x, events), want, atol=1e-5)


def bank_of(model: GPT4Rec) -> Bank:
    bank = cast("MemoryBank", model.encoder).bank
    bank.write.weight.mul_(3.0)  # some gates are closed, some are open
    return bank


def test_the_chunkwise_form_of_a_memory_bank_is_its_recurrence() -> None:
    bank = bank_of(network("memory_bank"))
    n, padded = 21, 24
    y, before = torch.randn(1, padded, 32), torch.randn(1, 16, 32)
    got, after, reads = bank.mix(y, torch.tensor([n]), before)
    slots, of_events, written = before[0] + bank.start, torch.zeros(16, padded), []
    for t in range(n):
        query = bank.query(y[0, t]).view(2, 16)
        for head in range(2):
            held = slots[:, 16 * head : 16 * (head + 1)]
            share = (held @ query[head] / 4).softmax(0)
            assert torch.allclose(got[0, t, 16 * head : 16 * (head + 1)], share @ held, atol=1e-5)
            assert torch.allclose(reads.slots[0, t, head], share, atol=1e-5)
            assert torch.allclose(reads.events[0, t, head], share @ of_events, atol=1e-5)
        part = torch.sigmoid(bank.write(y[0, t])) * bank.place(y[0, t]).softmax(0)
        write = LARGEST * F.relu((1 + CUT) * part - CUT)[:, None]
        written.append(float(write.sum()))
        slots = (1 - write) * slots + write * bank.content(y[0, t])
        of_events = (1 - write) * of_events + write * torch.eye(padded)[t]
    assert torch.allclose(after[0] + bank.start, slots, atol=1e-5)
    assert min(written) == 0.0 and max(written) > 0.5


def test_events_that_keep_nothing_do_not_wear_a_slot_away() -> None:
    model = network("memory_bank")
    bank = bank_of(model)
    x, events = inputs(model, 40)
    state = model.encoder.step(x, chunk_of(events, 0, 40, 8), cast("MemoryBank", model.encoder).empty(x))[1]
    bank.write.bias.fill_(-50.0)
    after = model.encoder.step(x, chunk_of(events, 0, 40, 8), state)[1]
    assert torch.equal(after[BANK], state[BANK])


@pytest.mark.parametrize("named", [False, True])
def test_hierarchy_reads_the_newest_sessions_and_fuses_horizons_by_their_age(named: bool) -> None:
    slots, n = 3, CHUNK + 26
    model = network("hierarchy", session_slots=slots, session_ids=named)
    encoder = cast("Hierarchy", model.encoder)
    reader, horizons = encoder.sessions, encoder.horizons
    horizons.stretch.copy_(torch.tensor([0.3, -0.2, 0.1]))
    assert reader.decay is not None
    x, events = inputs(model, n)
    session = torch.randint(0, 3, (1, n)) if named else torch.zeros(1, n, dtype=torch.int64)
    events = replace(events, session=session if named else None)
    got, time = encoder(x, events, None)[0], events.time_ms[0]
    hidden = attended(encoder, x, events)[0]
    y = encoder.norm(hidden)
    v = encoder.value(y)
    g = LEAST_WEIGHT + (1 - LEAST_WEIGHT) * torch.sigmoid(reader.weight(y))
    known = (session[0, 1:] > 0) & (session[0, :-1] > 0)
    paused, other = time[1:] - time[:-1] > 30 * 60_000, session[0, 1:] != session[0, :-1]
    starts = [0, *((known & other) | (~known & paused)).nonzero()[:, 0].add(1).tolist()]
    assert not named or {bool(known[t] & paused[t] & ~other[t]) for t in range(n - 1)} == {False, True}
    for t in (0, 1, 2, 30, CHUNK - 1, CHUNK, n - 1):
        begun = [start for start in starts if start <= t]
        ends = [*begun[1:], t + 1]
        spans = list(zip(begun, ends, strict=True))[-slots - 1 :]
        means = torch.stack([(g[a:b] * v[a:b]).sum(0) / g[a:b].sum() for a, b in spans])
        waited = torch.stack([time[t] - time[b - 1] for _, b in spans[:-1]] + [time[t] - time[t]])
        query, key, value = reader.query(y[t]).view(2, 16), reader.key(means), reader.value(means)
        read = []
        for head in range(2):
            part = slice(16 * head, 16 * (head + 1))
            score = key[:, part] @ query[head] / 4 - F.softplus(reader.decay[head]) * log_seconds(waited)
            read.append(score.softmax(0) @ value[:, part])
        age = (time[t] - time[:t]) / 1000.0
        fused, ages = torch.zeros(3, 32), torch.zeros(3)
        for k, half_life in enumerate(HALF_LIVES_S):
            if t:
                weight = (0.5 ** ((age - age[-1]) / (half_life * horizons.stretch[k].exp()))).float()
                fused[k], ages[k] = weight @ v[:t] / weight.sum(), weight @ age.float() / weight.sum()
        gate = horizons.gate(torch.cat([y[t], 0.1 * torch.log1p(ages)])).softmax(0)
        h = hidden[t] + encoder.out(torch.cat([*read, gate @ fused]))
        h = h + encoder.down(F.gelu(encoder.up(encoder.norm_ff(h))))
        assert torch.allclose(got[t], h, atol=1e-4), t


@pytest.mark.parametrize("name", ["memory_bank", "hierarchy"])
def test_what_is_shown_of_a_memory_is_what_moves_its_read(name: str) -> None:
    """Of a padded history as of a plain one: shares by event add up, and events outside the memory have none."""
    model = network(name, session_slots=2)
    x, events = inputs(model, 30)
    shown = model.encoder.memory_read(x, replace(events, length=torch.tensor([24])))
    alone = model.encoder.memory_read(x[:, :24], replace(chunk_of(events, 0, 24, 8), length=torch.tensor([24])))
    share = shown["events"][0]
    assert torch.allclose(share[:24], alone["events"][0], atol=1e-5) and not share[24:].any()
    if name == "hierarchy":
        number = shown["sessions"][0]
        assert shown["horizons"].sum().item() == pytest.approx(1.0, abs=1e-5)
        assert share.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert not share[number < number[23] - 2].any() and (share[:24][number[:24] >= number[23] - 2] > 0).all()
    else:
        assert shown["slots"].sum().item() == pytest.approx(1.0, abs=1e-5)
        assert 0.0 < share.sum().item() < 1.0


@pytest.mark.parametrize("before", [1, 17, 29])
@pytest.mark.parametrize("name", ["memory_bank", "hierarchy"])
def test_after_a_state_the_same_is_read_as_of_a_whole_history(name: str, before: int) -> None:
    model = network(name, session_slots=2)
    encoder = cast("MemoryEncoder", model.encoder)
    x, events = inputs(model, 30)
    whole = encoder.memory_read(x, replace(events, length=torch.tensor([30])))
    state = encoder.step(x[:, :before], chunk_of(events, 0, before, 8), encoder.empty(x))[1]
    after = encoder.memory_read(x[:, before:], chunk_of(events, before, 30, 8), state)
    assert after.keys() == whole.keys()
    for part, shown in after.items():
        want = whole[part][:, before:] if part in ("events", "sessions") else whole[part]
        assert torch.allclose(shown, want, atol=1e-5), part


def test_an_encoder_without_a_memory_to_show_says_so() -> None:
    model = network("gpt4rec")
    x, events = inputs(model, 3)
    with pytest.raises(NotImplementedError, match="Streaming"):
        model.encoder.memory_read(x, events)
