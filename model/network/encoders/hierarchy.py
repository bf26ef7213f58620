"""Hierarchy: items → sessions → user, beside the window.

    session   events without a pause longer than `session_gap_minutes`, or, with `session_ids`, events in a row that
              name the same session; its summary is Σ g_j v_j / Σ g_j over its events
    reads     attention over the summaries of the newest `session_slots` sessions that have ended, decayed by the time
              since their end, and over that of the session that goes on
    horizon   mean of all events before, decayed with a half-life: hours, days and a month (`HALF_LIVES_S`), stretched
              by factors that are learned
    fusion    Σ_k softmax_k(W [y; log(1 + age)]) · horizon_k      age: mean age of the events of a horizon at the event

g and v follow from y, the normed output of the last attention block. What sessions and horizons say goes into the
hidden state, then through a feed-forward layer. Sessions as a second level are those of hierarchical recurrent networks
(Quadrana et al., 2017, arXiv 1706.04148), horizons fused by a gate those of Lv et al., "SDM: sequential deep matching
model", 2019 (arXiv 1909.00385), which has a short and a long one.

Where one of two neighbours names no session, the pause between them counts. The state keeps the number of the last
event's session. In a log without times and names all events are one session, and all horizons are its mean.

A summary is the mean up to an event, so those of a chunk are one product, and which of them ended a session is a mask.
The horizons depend on all events there were, so the state cannot be rebuilt from a log that was trimmed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events, log_seconds
from model.network.encoders.layers import picked, stored_dtype
from model.network.encoders.memory_encoder import MemoryEncoder, earlier, window_arrays
from model.network.encoders.streaming import quantise
from service.artifact.graphs.state_layout import StateArray, StateLayout

# What the half-lives of the short, the middle and the long horizon start from: four hours, four days, thirty days.
HALF_LIVES_S = (14_400.0, 345_600.0, 2_592_000.0)
# The least weight of an event in the summary of its session, so that no sum of weights is zero.
LEAST_WEIGHT = 1e-3

SUMMARIES, ENDED_MS, OPEN, SESSION = "summaries", "ended_ms", "open", "session"
LAST_NAMED = "last_named"
HORIZONS, WEIGHTS, AGES = "horizons", "weights", "ages_s"


@dataclass(frozen=True)
class Sessions:
    """The summaries that the events of a chunk may read, and how.

    They are those of the state, that of the session that went on before the chunk, then the mean of a session up to
    each event.

    Attributes:
        number: [B, T] number of each event's session, from 0.
        summary: [B, S, d] the summaries, rounded as the state stores them.
        of: [B, S] number of the session of each summary.
        ended: [B, S] whether it is that of a session that has ended.
        ended_ms: [B, S] when.
        current: [B, T, d] the mean of each event's session up to it.
        open: [B, T, d + 1] its weighted sum and weight.
    """

    number: Tensor
    summary: Tensor
    of: Tensor
    ended: Tensor
    ended_ms: Tensor
    current: Tensor
    open: Tensor


class SessionReader(nn.Module):
    """Makes the summaries of sessions, and reads them by attention."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c, width = c, c.heads * c.d_head
        self.weight = nn.Linear(c.d_model, 1)
        self.query = nn.Linear(c.d_model, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.decay = nn.Parameter(torch.full((c.heads,), -3.0)) if c.has_time else None

    def sessions(self, y: Tensor, v: Tensor, events: Events, state: Mapping[str, Tensor]) -> Sessions:
        """Returns the sessions of a chunk, from the normed inputs y [B, T, d] and their values v [B, T, width]."""
        assert events.previous_ms is not None  # noqa: S101 - what `Encoder.step` promises
        slots, begins = self.c.session_slots, self.begins(events, state)
        number = state[SESSION] + begins.to(torch.int64).cumsum(dim=1)
        weighted = self.weighted(y, v)
        same = (number[:, :, None] == number[:, None]) & earlier(y)
        goes_on = (number == state[SESSION]).to(y.dtype)[..., None]
        sums = same.to(y.dtype) @ weighted + goes_on * state[OPEN][:, None]
        current = _mean(sums)
        summary = quantise(torch.cat([_mean(state[OPEN][:, None]), current], dim=1), stored_dtype(self.c))
        kept = state[SESSION] - slots + torch.arange(slots, device=y.device)
        return Sessions(
            number=number,
            summary=torch.cat([state[SUMMARIES], summary], dim=1),
            of=torch.cat([kept, state[SESSION], number], dim=1),
            ended=torch.cat([kept >= 0, begins, torch.zeros_like(begins[:, :1])], dim=1),
            ended_ms=torch.cat([state[ENDED_MS], events.previous_ms[:, :1], events.time_ms], dim=1),
            current=current,
            open=sums,
        )

    def begins(self, events: Events, state: Mapping[str, Tensor]) -> Tensor:
        """Returns whether each event [B, T] begins a session."""
        assert events.previous_ms is not None  # noqa: S101 - what `Encoder.step` promises
        paused = events.time_ms - events.previous_ms > self.c.session_gap_minutes * 60_000
        if not self.c.session_ids:
            return paused
        named = self.named(events)
        before = torch.cat([state[LAST_NAMED], named], dim=1)[:, : named.shape[1]]
        # Without "not" and "not equal", which CUDA has no kernels for.
        unknown, other = (named == 0) | (before == 0), (named < before) | (named > before)
        return (unknown & paused) | ((named > 0) & (before > 0) & other)

    def named(self, events: Events) -> Tensor:
        """Returns the numbers [B, T] of the sessions that the events name, 0 for none."""
        return torch.zeros_like(events.time_ms) if events.session is None else events.session

    def weighted(self, y: Tensor, v: Tensor) -> Tensor:
        """Returns g · v and g [B, T, width + 1]."""
        g = LEAST_WEIGHT + (1 - LEAST_WEIGHT) * torch.sigmoid(self.weight(y))
        return torch.cat([g * v, g], dim=-1)

    def forward(self, y: Tensor, sessions: Sessions, time_ms: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what each event reads [B, T, width], and its attention [B, heads, T, S + 1].

        The last share is that of the session that goes on.

        Args:
            y: [B, T, d] normed inputs.
            sessions: The sessions of the chunk.
            time_ms: [B, T] times of the events.
        """
        number = sessions.number[..., None]
        of = sessions.of[:, None]
        seen = sessions.ended[:, None] & (of < number) & (of >= number - self.c.session_slots)
        query = _heads(self.query(y), self.c.heads)
        key, value = (_heads(layer(sessions.summary), self.c.heads) for layer in (self.key, self.value))
        own_key, own_value = (_heads(layer(sessions.current), self.c.heads) for layer in (self.key, self.value))
        score = query @ key.transpose(2, 3) * self.c.d_head**-0.5 + torch.where(seen, 0.0, MASK_SCORE)[:, None]
        if self.decay is not None:
            elapsed = log_seconds(time_ms[:, :, None] - sessions.ended_ms[:, None])
            score = score - F.softplus(self.decay)[:, None, None] * elapsed[:, None]
        own = (query * own_key).sum(dim=-1, keepdim=True) * self.c.d_head**-0.5
        share = torch.cat([score, own], dim=-1).softmax(dim=-1)
        read = share[..., :-1] @ value + share[..., -1:] * own_value
        return read.transpose(1, 2).reshape(*y.shape[:2], -1), share

    def after(self, sessions: Sessions, events: Events, length: Tensor) -> dict[str, Tensor]:
        """Returns the arrays of sessions after `length` [B] events of each row."""
        slots, last = self.c.session_slots, length[:, None] - 1
        number = sessions.number.gather(1, last)
        wanted = number - slots + torch.arange(slots, device=number.device)  # [B, slots]
        chosen = (wanted[..., None] == sessions.of[:, None]) & sessions.ended[:, None] & (wanted >= 0)[..., None]
        return {
            SUMMARIES: chosen.to(sessions.summary.dtype) @ sessions.summary,
            ENDED_MS: torch.where(chosen, sessions.ended_ms[:, None], 0).amax(dim=2),
            OPEN: picked(sessions.open, last)[:, 0],
            SESSION: number,
            **({LAST_NAMED: self.named(events).gather(1, last)} if self.c.session_ids else {}),
        }


class Horizons(nn.Module):
    """Means of all events, decayed with three half-lives, and the gate that fuses them."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(len(HALF_LIVES_S)))
        self.gate = nn.Linear(c.d_model + len(HALF_LIVES_S), len(HALF_LIVES_S))
        self.register_buffer("half_life_s", torch.tensor(HALF_LIVES_S), persistent=False)

    half_life_s: Tensor

    def rates(self) -> Tensor:
        """Returns the rates of decay [3] per second."""
        return math.log(2) / (self.half_life_s * self.stretch.exp())

    def forward(
        self, y: Tensor, v: Tensor, events: Events, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Returns the fused horizons [B, T, width], the arrays after the chunk, and the gate [B, T, 3].

        Args:
            y: [B, T, d] normed inputs.
            v: [B, T, width] their values.
            events: The events, with `length` and `previous_ms`.
            state: The arrays.
        """
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        assert events.previous_ms is not None  # noqa: S101
        before_ms = events.previous_ms[:, :1]
        rate = self.rates()[:, None, None]
        age_s = _seconds(events.time_ms[:, :, None] - events.time_ms[:, None])[:, None]  # [B, 1, T, T]
        share = torch.exp(torch.where(earlier(y), -rate * age_s, MASK_SCORE))  # [B, 3, T, T]
        since_s = _seconds(events.time_ms - before_ms)[:, None]  # [B, 1, T]
        old = torch.exp(-rate[..., 0] * since_s) * state[WEIGHTS][..., None]  # [B, 3, T]
        weight = share.sum(dim=-1) + old  # at least 1: the event's own
        mean = (share @ v[:, None] + old[..., None] * state[HORIZONS][:, :, None]) / weight[..., None]
        age = ((share * age_s).sum(dim=-1) + old * (state[AGES][..., None] + since_s)) / weight
        # An event reads the means before it. Their weights do not matter for that, so nothing small is divided.
        n = y.shape[1]
        mean_before = torch.cat([state[HORIZONS][:, :, None], mean], dim=2)[:, :, :n]
        waited_s = _seconds(events.time_ms - events.previous_ms)[:, None]
        age_before = torch.cat([state[AGES][..., None], age], dim=2)[:, :, :n] + waited_s
        gate = self.gate(torch.cat([y, 0.1 * torch.log1p(age_before.transpose(1, 2))], dim=-1)).softmax(dim=-1)
        fused = (gate.transpose(1, 2)[..., None] * mean_before).sum(dim=1)
        last = (events.length - 1)[:, None, None].expand(-1, len(HALF_LIVES_S), 1)  # [B, 3, 1]
        return fused, {
            HORIZONS: mean.gather(2, last[..., None].expand(-1, -1, -1, mean.shape[3]))[:, :, 0],
            WEIGHTS: weight.gather(2, last)[..., 0],
            AGES: age.gather(2, last)[..., 0],
        }, gate  # fmt: skip


class Hierarchy(MemoryEncoder):
    """[attention in a window, feed-forward] × layers, then sessions and horizons, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        width = c.heads * c.d_head
        self.norm = nn.LayerNorm(c.d_model)
        self.value = nn.Linear(c.d_model, width, bias=False)
        self.sessions = SessionReader(c)
        self.horizons = Horizons(c)
        self.out = nn.Linear(2 * width, c.d_model, bias=False)
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns the window, the sessions and the horizons; what is added up is float32."""
        kv, time_ms = window_arrays(c)
        width, horizons = c.heads * c.d_head, len(HALF_LIVES_S)
        arrays = (
            kv,
            StateArray(SUMMARIES, stored_dtype(c), (c.session_slots, width)),
            StateArray(ENDED_MS, "int64", (c.session_slots,)),
            StateArray(OPEN, "float32", (width + 1,)),
            StateArray(SESSION, "int64", (1,)),
            *([StateArray(LAST_NAMED, "int64", (1,))] if c.session_ids else []),
            StateArray(HORIZONS, "float32", (horizons, width)),
            StateArray(WEIGHTS, "float32", (horizons,)),
            StateArray(AGES, "float32", (horizons,)),
            time_ms,
        )
        return StateLayout(c.d_model, c.window, arrays, remembers_trimmed=True)

    def add(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds a chunk of events; see `MemoryEncoder.add`."""
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        x, after = self.attend(x, events, state)
        y = self.norm(x)
        v = self.value(y)
        sessions = self.sessions.sessions(y, v, events, state)
        read, _ = self.sessions(y, sessions, events.time_ms)
        fused, horizons, _ = self.horizons(y, v, events, state)
        x = x + self.dropout(self.out(torch.cat([read, fused], dim=-1)))
        h = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        return h, after | self.sessions.after(sessions, events, events.length) | horizons

    def read(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the last event of each row reads; see `Encoder.memory_read`.

        Returns:
            `events` [B, T], by way of the summaries of sessions, the mean over the heads; `sessions` [B, T] int64, the
            number of each event's session; `horizons` [B, 3], how much of each is in the fusion.
        """
        assert events.length is not None  # noqa: S101 - what `Encoder.memory_read` promises
        x, _ = self.attend(x, events, state)
        y = self.norm(x)
        v = self.value(y)
        sessions = self.sessions.sessions(y, v, events, state)
        gate = self.horizons(y, v, events, state)[2]
        last = events.length[:, None] - 1
        share = self.sessions(y, sessions, events.time_ms)[1].mean(dim=1)  # [B, T, slots + 1 + T + 1]
        share = picked(share, last)[:, 0]
        # Summary s of the chunk is that of an event; the last share is that of the mean up to the reading event.
        own = (torch.arange(x.shape[1], device=x.device) == last).to(x.dtype) * share[:, -1:]
        of_summary = share[:, self.c.session_slots + 1 : -1] + own
        same = (sessions.number[:, :, None] == sessions.number[:, None]) & earlier(y)
        weight = self.sessions.weighted(y, v)[..., -1]
        # [B, summary, event]; what a session weighs includes its events before the chunk
        inside = same.to(x.dtype) * weight[:, None] / sessions.open[..., -1:]
        return {
            "events": (of_summary[:, None] @ inside)[:, 0],
            "sessions": sessions.number,
            "horizons": picked(gate, last)[:, 0],
        }


def _mean(sums: Tensor) -> Tensor:
    """Returns Σ g v / Σ g [..., d] of sums [..., d + 1]; 0 where there is nothing."""
    return sums[..., :-1] / sums[..., -1:].clamp(min=LEAST_WEIGHT)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Returns [B, n, heads · d_head] as [B, heads, n, d_head]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _seconds(delta_ms: Tensor) -> Tensor:
    """Returns the seconds of int64 milliseconds; none is negative."""
    return delta_ms.clamp(min=0).to(torch.float32) / 1000.0
