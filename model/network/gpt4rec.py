"""GPT4Rec: a streamable causal backbone and a K-level decoder over item tokens.

    events → item + type + gap + period → encoder ([attention, feed-forward] × layers) → h
    h, context → q → token 1 → … → token K        p(item) = ∏ p(token_l | q, tokens before l)
                 q · e_item                        dense score of the same item

The encoder sees events only. Nothing in the default one depends on the time of the request, on user features or on the
absolute position, so its state can be carried from event to event (`export/graphs/encoder.py` writes the same
computation as an ONNX graph with that state). Everything that belongs to a request enters in the decoder, through a
conditional layer norm.

Where to look: another backbone is a class in `model/network/encoders/`, registered in `registry.py`; the loss is in
`model/training/losses.py`; the training loop is in `model/training/trainer.py`.

Letters in shapes: B rows of a batch, T positions, P positions that carry a loss, N items, d = `d_model`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.content_gate import ItemContentGate
from model.network.encoders.base import Encoder, Events, log_seconds
from model.network.encoders.behaviours import Behaviours
from model.network.encoders.registry import encoder_class
from model.network.item_attributes import ItemAttributes
from model.network.item_rows import ItemParts, ItemRows
from model.network.query_vectors import QueryVectors
from model.network.request_context import ContextNorm, SoftPrompts

PERIODS_MS = (86_400_000, 604_800_000, 2_629_746_000)  # day, week, mean month


def periodic(time_ms: Tensor) -> Tensor:
    """Returns sine and cosine [..., 6] of the time within a day, a week and a month."""
    phases = [(time_ms % period).to(torch.float32) * (2 * math.pi / period) for period in PERIODS_MS]
    return torch.stack([f(phase) for phase in phases for f in (torch.sin, torch.cos)], dim=-1)


class Level(nn.Module):
    """Residual feed-forward layer before each level's logits: s ← s + down(silu(up(norm(s))))."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, s: Tensor) -> Tensor:
        """Returns the updated decoder state; s and the result are [..., d]."""
        out: Tensor = s + self.down(self.dropout(F.silu(self.up(self.norm(s)))))
        return out


class GPT4Rec(nn.Module):
    """The network.

    `forward` and `encode` turn events into hidden states, `query` adds the request's context, `path_logits` scores
    token paths for the loss, and `begin`, `level_logits` and `step` decode token by token.

    Attributes:
        codes: [n_items, levels] int64, the fitted tokenizer's table; saved with the weights.
        encoder: The backbone, by the name in `config.encoder`.
        of_content: Content embeddings for rarely seen items; None without item texts.
        attributes: What is known of the items, for encoders that read it; None for the others.
        gram: [query_buckets + 1, d] embeddings of the n-grams of queries; None where no queries are read.
        known_query: Vectors of the queries that it knows; None where it knows none.
    """

    codes: Tensor

    def __init__(self, config: NetworkConfig, codes: Tensor, item: ItemParts | None = None) -> None:
        """Draws a network.

        Args:
            config: Its shape.
            codes: [n_items, levels] the tokenizer's table.
            item: This process's part of the id embeddings, where several processes share them; None: all of them.
        """
        super().__init__()
        c = self.config = config
        if codes.shape != (c.n_items, c.levels):
            raise ValueError(f"codes are {tuple(codes.shape)}, but the configuration needs {(c.n_items, c.levels)}")
        self.register_buffer("codes", codes.to(torch.int64))
        # Row n_items is the unknown item, row n_items + 1 the start token of a history.
        self.item = ItemRows(c.n_items + 2, c.d_model) if item is None else item
        self.of_content = ItemContentGate(c.n_items, c.content, c.d_model) if c.content else None
        self.token = nn.ModuleList([nn.Embedding(size, c.d_model) for size in c.code_sizes])
        self.event_type = nn.Embedding(c.n_types + 1, c.d_model)  # the last row is the start token's; unused
        self.type_scale = nn.Parameter(torch.ones(c.n_types + 1)) if c.type_scale else None
        self.gram = nn.Embedding(c.query_buckets + 1, c.d_model) if c.query_buckets else None
        self.known_query = QueryVectors(c) if c.n_known_queries else None
        self.attributes = ItemAttributes(c) if c.attribute_slots else None
        self.gap = nn.Linear(1, c.d_model, bias=False)
        self.period = nn.Linear(2 * len(PERIODS_MS), c.d_model, bias=False)
        self.dropout = nn.Dropout(c.dropout)
        self.encoder: Encoder = encoder_class(c.encoder)(c)
        self.describe = nn.Linear(c.d_context, c.d_model, bias=False) if self.encoder.reads_context else None
        self.context = ContextNorm(c)
        self.prompts = SoftPrompts(c) if c.prompts else None
        # The decoder has token tables of its own: those in the item table describe items, these predict the next token.
        self.advance = nn.ModuleList([Level(c) for _ in range(c.levels)])
        self.level_norm = nn.ModuleList([nn.LayerNorm(c.d_model) for _ in range(c.levels)])
        self.level_token = nn.ModuleList([nn.Embedding(size, c.d_model) for size in c.code_sizes[:-1]])
        self.level_out = nn.ModuleList([nn.Linear(c.d_model, size) for size in c.code_sizes])
        whole = [self.item] if isinstance(self.item, ItemRows) else []
        for table in [*whole, *self.token, *self.level_token, self.event_type]:
            nn.init.normal_(table.weight, std=0.05)
        if self.gram is not None:
            nn.init.normal_(self.gram.weight, std=0.05)
        for linear in (self.gap, self.period):
            nn.init.normal_(linear.weight, std=0.01)

    @torch.no_grad()
    def init_item_embeddings(self, vectors: Tensor) -> None:
        """Starts the id embeddings from given vectors instead of random ones.

        Args:
            vectors: [n_items, ≤ d] of unit mean length; they are scaled to the length of the random start. Rows of
                zeros keep their random start.
        """
        known = vectors.abs().sum(dim=1) > 0
        length = self.item.weight.norm(dim=1).mean()
        self.item.weight[:-2][known, : vectors.shape[1]] = vectors[known].to(self.item.weight) * length

    def item_table(self, rows: Tensor | None = None) -> Tensor:
        """Returns the item table: e_item = id embedding + token embeddings.

        Args:
            rows: [R] item indices, ascending; None for the whole catalogue.

        Returns:
            [n_items + 2, d], or [R + 2, d] with `rows`. The last two rows are the unknown item and the start token;
            they have no token embeddings.
        """
        known, beside = self.item.looked_up(rows)
        return torch.cat([self.described(known, rows), beside])

    def described(self, known: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the vectors [R, d] of items: their id embeddings `known` [R, d] with what is said of them added."""
        if self.of_content is not None:
            known = self.of_content(known, rows)
        codes = self.codes if rows is None else self.codes[rows]
        tokens = [table(codes[:, level]) for level, table in enumerate(self.token)]
        return torch.stack([known, *tokens]).sum(0)

    @torch.no_grad()
    def set_item_vectors(self, rows: Tensor, vectors: Tensor) -> None:
        """Gives items other vectors, up to rounding, without changing their tokens.

        Args:
            rows: [R] item indices.
            vectors: [R, d] what `item_table` returns for them from now on. Their content stands in for them no longer.
        """
        if self.of_content is not None:
            self.of_content.vectors[rows] = 0
        tokens = torch.stack([table(self.codes[rows, level]) for level, table in enumerate(self.token)]).sum(0)
        self.item.weight[rows] = vectors.to(tokens) - tokens

    def embed(
        self,
        table: Tensor,
        item: Tensor,
        type_: Tensor,
        time_ms: Tensor,
        previous_ms: Tensor | None = None,
        query: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the two parts of the encoder's input, [B, T, d] each.

        The first is the embedded item, scaled by the event's type where that is learned, and the text of its query.
        A search without an item has the row of the unknown item. The second is type, gap to the event before (0 for the
        first) and period; it is zero for the start token.

        Args:
            table: [N + 2, d] item table.
            item: [B, T] rows of the table.
            type_: [B, T] event types.
            time_ms: [B, T] milliseconds since the epoch.
            previous_ms: [B, T] times of the events before; None if the first event of each row has none before it.
            query: [B, T, QUERY_GRAMS] n-grams of the queries; None where there are none.
        """
        features = self.event_type(type_)
        if self.config.has_time:
            if previous_ms is None:
                previous_ms = torch.cat([time_ms[:, :1], time_ms[:, :-1]], dim=1)
            gap = time_ms - previous_ms
            features = features + self.gap(log_seconds(gap)[..., None] * 0.1) + self.period(periodic(time_ms))
        is_event = (type_ < self.config.n_types).to(features.dtype)[..., None]
        items = F.embedding(item, table)
        if self.type_scale is not None:
            items = items * self.type_scale[type_][..., None]
        if self.gram is not None and query is not None:
            items = items + self.query_text(query)
        return items, features * is_event

    def query_text(self, query: Tensor) -> Tensor:
        """Returns the embedded queries [..., d]: the sum of their n-grams over the root of their number.

        The vector of a query that the network knows counts as one more n-gram.

        Args:
            query: [..., QUERY_GRAMS] n-grams, 0 where there are none.
        """
        assert self.gram is not None  # noqa: S101 - the caller checks
        if self.known_query is not None:
            query = self.known_query.forgotten(query)
        is_gram = (query > 0) & (query < len(self.gram.weight))
        total = (self.gram(torch.where(is_gram, query, 0)) * is_gram.to(self.gram.weight.dtype)[..., None]).sum(-2)
        if self.known_query is not None:
            total = total + self.known_query(query)
        count = (query > 0).to(total.dtype).sum(-1, keepdim=True)
        out: Tensor = total / count.clamp(min=1.0).sqrt()
        return out

    def forward(
        self,
        item: Tensor,
        type_: Tensor,
        time_ms: Tensor,
        table: Tensor | None = None,
        *,
        masked: Tensor | None = None,
        length: Tensor | None = None,
        context: Tensor | None = None,
        query: Tensor | None = None,
        session: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Encodes every position of right-padded histories. No event sees the padding after it.

        Args:
            item: [B, T] rows of the item table.
            type_: [B, T] event types.
            time_ms: [B, T] milliseconds since the epoch. A start token carries the time of the first event.
            table: [N + 2, d] item table; None computes it.
            masked: [B, T] bool, the masked positions, for encoders of the task "masked".
            length: [B] events of each row, for encoders of the task "masked".
            context: [B, slots] context rows, for encoders that read user features.
            query: [B, T, QUERY_GRAMS] n-grams of the queries; None where there are none.
            session: [B, T] numbers of the sessions; None where there are none.
            rows: [R] the items that `table` has, where it was made for some of them alone.

        Returns:
            [B, T, d] hidden states.
        """
        x, events = self._events(
            item, type_, time_ms, table, length=length, masked=masked, query=query, session=session, rows=rows
        )  # fmt: skip
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
        query: Tensor | None = None,
        session: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Returns the hidden state h [B, d] after the first `length` [B] events of each row.

        The arguments are those of `forward`.
        """
        x, events = self._events(
            item, type_, time_ms, table, length=length, query=query, session=session, rows=rows
        )  # fmt: skip
        return self.encoder.last(x, events, self._user(context))

    def stream_states(
        self, item: Tensor, type_: Tensor, time_ms: Tensor, table: Tensor, query: Tensor | None = None
    ) -> Tensor:
        """Returns the states [B, T, streams, d] of the encoder `behaviours`, which `Behaviours.fused` makes h of.

        The arguments are those of `forward`.
        """
        x, events = self._events(item, type_, time_ms, table, query=query)
        states: Tensor = cast(Behaviours, self.encoder).states(x, events)
        return states

    def _user(self, context: Tensor | None) -> Tensor | None:
        """Returns the users' features [B, d] for the encoder; None where it reads none or none are given."""
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
        masked: Tensor | None = None,
        query: Tensor | None = None,
        session: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Events]:
        table = self.item_table() if table is None else table
        items, features = self.embed(table, item, type_, time_ms, query=query)
        events = Events(type_, time_ms, items, features, length, masked, session=session)
        if self.attributes is not None:
            values, known = self.attributes(item, rows, len(table))
            events = replace(events, attributes=values, has_attribute=known)
        return self.dropout(items + features), events

    def query(self, h: Tensor, context: Tensor, gap_ms: Tensor) -> Tensor:
        """Returns the query q [..., d], the conditional layer norm of h.

        Where the encoder reads the user features, they are left out here.

        Args:
            h: [..., d] hidden states.
            context: [..., slots] int64 context rows, 0 where unknown.
            gap_ms: [...] int64 milliseconds between the last event and the request, −1 where unknown.
        """
        asked = context
        if self.describe is not None:
            read_by_encoder = torch.arange(context.shape[-1], device=context.device) < self.config.n_fields
            context = torch.where(read_by_encoder, 0, context)
        if self.prompts is not None:
            h = self.prompts(h, asked)
        q: Tensor = self.context(h, context, gap_ms)
        return q

    def level_logits(self, level: int, s: Tensor) -> Tensor:
        """Returns the logits [..., code_sizes[level]] of the level's token, given the decoder state s [..., d]."""
        out: Tensor = self.level_out[level](self.level_norm[level](s))
        return out

    def begin(self, q: Tensor) -> Tensor:
        """Returns the decoder state [..., d] from which the first token is chosen."""
        out: Tensor = self.advance[0](q)
        return out

    def step(self, level: int, s: Tensor, token: Tensor) -> Tensor:
        """Returns the decoder state [..., d] after choosing `token` [...] at `level`."""
        out: Tensor = self.advance[level + 1](s + self.level_token[level](token))
        return out

    def path_logits(self, q: Tensor, codes: Tensor) -> list[Tensor]:
        """Returns the logits of every level with teacher forcing.

        Args:
            q: [..., d] queries.
            codes: [..., levels] token paths.

        Returns:
            One [..., code_sizes[l]] tensor for each level l.
        """
        logits, s = [], self.begin(q)
        for level in range(self.config.levels):
            logits.append(self.level_logits(level, s))
            if level + 1 < self.config.levels:
                s = self.step(level, s, codes[..., level])
        return logits
