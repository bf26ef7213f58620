"""GPT4Rec: a streamable causal backbone and a K-level decoder over item tokens.

The backbone sees events only: nothing in it depends on "now", on user features or on the absolute position, so a
state can be carried from event to event (`export/graphs/encoder.py` writes the same computation as an ONNX graph with
that state). Everything that belongs to a request enters in the decoder, through a conditional layer norm.

    events → item + type + gap + period → [attention, feed-forward] × layers → h
    h, context → q → token 1 → … → token K        p(item) = ∏ p(token_l | q, tokens before l)
                 q · e_item                        dense score of the same item
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.content_gate import ItemContentGate
from model.network.encoders.base import Encoder, Events, log_seconds
from model.network.encoders.registry import encoder_class

PERIODS_MS = (86_400_000, 604_800_000, 2_629_746_000)  # day, week, mean month


def periodic(time_ms: Tensor) -> Tensor:
    """[…, 6] sine and cosine of the time within a day, a week and a month."""
    phases = [(time_ms % period).to(torch.float32) * (2 * math.pi / period) for period in PERIODS_MS]
    return torch.stack([f(phase) for phase in phases for f in (torch.sin, torch.cos)], dim=-1)


class ContextNorm(nn.Module):
    """Conditional layer norm: q = γ(context) ⊙ norm(h) + β(context), over slots and the gap to now."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.table = nn.Embedding(c.n_context_rows, c.d_context)
        self.slot = nn.Parameter(torch.zeros(c.n_slots, c.d_context))
        self.gap = nn.Linear(1, c.d_context, bias=False)
        self.gap_known = nn.Parameter(torch.zeros(c.d_context))
        self.modulate = nn.Linear(c.d_context, 2 * c.d_model)
        nn.init.normal_(self.table.weight, std=0.3)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, h: Tensor, context: Tensor, gap_ms: Tensor) -> Tensor:
        """h […, d], context […, slots] int64 (0 unknown), gap_ms […] int64 (−1 unknown) → q […, d]."""
        mixed = self.mixed(context)
        gap_is_known = (gap_ms >= 0).to(h.dtype)[..., None]
        mixed = mixed + gap_is_known * (self.gap(log_seconds(gap_ms)[..., None] * 0.1) + self.gap_known)
        gamma, beta = self.modulate(F.silu(mixed)).chunk(2, dim=-1)
        out: Tensor = self.norm(h) * (1.0 + gamma) + beta
        return out

    def mixed(self, context: Tensor) -> Tensor:
        """[…, d_context] the sum of what is known."""
        known = (context > 0).to(self.slot.dtype)[..., None]
        out: Tensor = ((self.table(context) + self.slot) * known).sum(dim=-2)
        return out


class Level(nn.Module):
    """Makes a level's state ready to be asked: s ← s + down(silu(up(norm(s))))."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, s: Tensor) -> Tensor:
        out: Tensor = s + self.down(self.dropout(F.silu(self.up(self.norm(s)))))
        return out


class GPT4Rec(nn.Module):
    """The network. `codes` [n_items, levels] int64 is the fitted tokenizer's table and is saved with the weights."""

    codes: Tensor

    def __init__(self, config: NetworkConfig, codes: Tensor) -> None:
        super().__init__()
        c = self.config = config
        if codes.shape != (c.n_items, c.levels):
            raise ValueError(f"codes are {tuple(codes.shape)}, the configuration needs {(c.n_items, c.levels)}")
        self.register_buffer("codes", codes.to(torch.int64))
        # Rows n_items and n_items + 1 stand for an unknown item and for the start of a history.
        self.item = nn.Embedding(c.n_items + 2, c.d_model)
        self.of_content = ItemContentGate(c.n_items, c.content, c.d_model) if c.content else None
        self.token = nn.ModuleList([nn.Embedding(size, c.d_model) for size in c.code_sizes])
        self.event_type = nn.Embedding(c.n_types + 1, c.d_model)  # the last row is the start token's and unused
        self.type_scale = nn.Parameter(torch.ones(c.n_types + 1)) if c.type_scale else None
        self.gap = nn.Linear(1, c.d_model, bias=False)
        self.period = nn.Linear(2 * len(PERIODS_MS), c.d_model, bias=False)
        self.dropout = nn.Dropout(c.dropout)
        self.encoder: Encoder = encoder_class(c.encoder)(c)
        self.describe = nn.Linear(c.d_context, c.d_model, bias=False) if self.encoder.reads_context else None
        self.context = ContextNorm(c)
        # The path has tables of its own: those in the item table say what items are like, these which tokens follow.
        self.advance = nn.ModuleList([Level(c) for _ in range(c.levels)])
        self.level_norm = nn.ModuleList([nn.LayerNorm(c.d_model) for _ in range(c.levels)])
        self.level_token = nn.ModuleList([nn.Embedding(size, c.d_model) for size in c.code_sizes[:-1]])
        self.level_out = nn.ModuleList([nn.Linear(c.d_model, size) for size in c.code_sizes])
        for table in [self.item, *self.token, *self.level_token, self.event_type]:
            nn.init.normal_(table.weight, std=0.05)
        for linear in (self.gap, self.period):
            nn.init.normal_(linear.weight, std=0.01)

    @torch.no_grad()
    def start_items_from(self, vectors: Tensor) -> None:
        """Put item vectors [n_items, ≤ d] of unit mean length in the place of the random start, at its length. Rows
        that are zero keep theirs."""
        known = vectors.abs().sum(dim=1) > 0
        length = self.item.weight.norm(dim=1).mean()
        self.item.weight[:-2][known, : vectors.shape[1]] = vectors[known].to(self.item.weight) * length

    def item_table(self, rows: Tensor | None = None) -> Tensor:
        """[n_items + 2, d] e_item = id embedding + token embeddings; the last two rows have no tokens. With `rows` [R]
        of items only theirs and the last two: [R + 2, d]."""
        known = self.item.weight[:-2] if rows is None else self.item(rows)
        if self.of_content is not None:
            known = self.of_content(known, rows)
        codes = self.codes if rows is None else self.codes[rows]
        tokens = [table(codes[:, level]) for level, table in enumerate(self.token)]
        return torch.cat([torch.stack([known, *tokens]).sum(0), self.item.weight[-2:]])

    def embed(self, table: Tensor, item: Tensor, type_: Tensor, time_ms: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder input in two parts [B, T, d]: the item, scaled by the event's type where that is learned; and type,
        gap and period, which the start token is without. The first event's gap is 0."""
        features = self.event_type(type_)
        if self.config.has_time:
            gap = torch.cat([torch.zeros_like(time_ms[:, :1]), time_ms[:, 1:] - time_ms[:, :-1]], dim=1)
            features = features + self.gap(log_seconds(gap)[..., None] * 0.1) + self.period(periodic(time_ms))
        is_event = (type_ < self.config.n_types).to(features.dtype)[..., None]
        items = F.embedding(item, table)
        if self.type_scale is not None:
            items = items * self.type_scale[type_][..., None]
        return items, features * is_event

    def forward(
        self,
        item: Tensor,
        type_: Tensor,
        time_ms: Tensor,
        table: Tensor | None = None,
        *,
        asked: Tensor | None = None,
        length: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Full pass over [B, T] right-padded events → h [B, T, d]. Padding cannot be seen from the left.

        A start token, where there is one, carries the first event's time. `asked` [B, T] bool, the hidden places, and
        `length` [B] are for encoders that are trained with them; `context` [B, slots] for encoders that read the
        users' features.
        """
        x, events = self._events(item, type_, time_ms, table, length=length, asked=asked)
        h: Tensor = self.encoder(x, events, self._user(context))
        return h

    def encode(
        self,
        item: Tensor,
        type_: Tensor,
        time_ms: Tensor,
        length: Tensor,
        table: Tensor | None = None,
        *,
        context: Tensor | None = None,
    ) -> Tensor:
        """h [B, d] that the item after the first `length` [B] events of each row is asked with."""
        x, events = self._events(item, type_, time_ms, table, length=length)
        return self.encoder.last(x, events, self._user(context))

    def _user(self, context: Tensor | None) -> Tensor | None:
        """[B, d] what the encoder is told of the users with context rows [B, slots]; None where it reads none."""
        if self.describe is None or context is None:
            return None
        of_user = torch.arange(context.shape[1], device=context.device) < self.config.n_fields
        user: Tensor = self.describe(self.context.mixed(torch.where(of_user, context, 0)))
        return user

    def _events(
        self,
        item: Tensor,
        type_: Tensor,
        time_ms: Tensor,
        table: Tensor | None,
        *,
        length: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Events]:
        items, features = self.embed(self.item_table() if table is None else table, item, type_, time_ms)
        return self.dropout(items + features), Events(type_, time_ms, items, features, length, asked)

    def query(self, h: Tensor, context: Tensor, gap_ms: Tensor) -> Tensor:
        """q […, d] = conditional layer norm of h. What the encoder has been told is not told again."""
        if self.describe is not None:
            told = torch.arange(context.shape[-1], device=context.device) < self.config.n_fields
            context = torch.where(told, 0, context)
        q: Tensor = self.context(h, context, gap_ms)
        return q

    def level_logits(self, level: int, s: Tensor) -> Tensor:
        """[…, code_sizes[level]] logits of the level's token, given the state after the tokens before it."""
        out: Tensor = self.level_out[level](self.level_norm[level](s))
        return out

    def begin(self, q: Tensor) -> Tensor:
        """Decoder state that the first token is chosen from."""
        out: Tensor = self.advance[0](q)
        return out

    def step(self, level: int, s: Tensor, token: Tensor) -> Tensor:
        """Decoder state after choosing `token` at `level`."""
        out: Tensor = self.advance[level + 1](s + self.level_token[level](token))
        return out

    def path_logits(self, q: Tensor, codes: Tensor) -> list[Tensor]:
        """Teacher forcing: logits of every level for paths `codes` […, levels]."""
        logits, s = [], self.begin(q)
        for level in range(self.config.levels):
            logits.append(self.level_logits(level, s))
            if level + 1 < self.config.levels:
                s = self.step(level, s, codes[..., level])
        return logits
