"""Hidden states and dense scores of stored histories, in batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary


def dense_logits(q: Tensor, table: Tensor) -> Tensor:
    """[P, N] scores q · e_item over the catalogue. They are not divided by √d: q is normalised, so an item that is seen
    a few times would have to grow √d times as long before it could stand out."""
    return q @ table[:-2].T


BATCH = 64


def recent(events: EventArrays, receptive_field: int, vocabulary: Vocabulary) -> EventArrays:
    """What the encoder is given of a history: all of it behind the start token, or as much as it can see."""
    events = replace(events, type=vocabulary.known_types(events.type))
    if len(events) < receptive_field:
        return vocabulary.with_start(events)
    return events.after(len(events) - receptive_field)


@torch.no_grad()
def encode_histories(
    model: GPT4Rec, histories: list[EventArrays], table: Tensor, context: Tensor | None = None
) -> Tensor:
    """[B, d] h after each history, in batches of like length; context [B, slots] for encoders that read it."""
    device = table.device
    out = torch.zeros(len(histories), model.config.d_model, device=device)
    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    for at in range(0, len(order), BATCH):
        rows = order[at : at + BATCH]
        longest = max(len(histories[row]) for row in rows)
        padded = np.zeros((3, len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            e = histories[row]
            for channel, values in enumerate((e.item, e.type, e.time_ms)):
                padded[channel, i, : len(e)] = values
        item, type_, time_ms = torch.from_numpy(padded).to(device)
        length = torch.tensor([len(histories[row]) for row in rows], device=device)
        given = None if context is None else context[rows]
        out[torch.tensor(rows, device=device)] = model.encode(item, type_, time_ms, length, table, context=given)
    return out


@torch.no_grad()
def dense_scores(
    model: GPT4Rec, histories: list[EventArrays], context: IntArray | None = None, gap_ms: IntArray | None = None
) -> Tensor:
    """[B, N] q · e_item. What is not given of the request, context [B, slots] and gap [B], is unknown."""
    table = model.item_table()
    slots = np.zeros((len(histories), model.config.n_slots), np.int64) if context is None else context
    gaps = np.full(len(histories), GAP_UNKNOWN, np.int64) if gap_ms is None else gap_ms
    known = torch.from_numpy(slots).to(table.device)
    h = encode_histories(model, histories, table, known)
    return dense_logits(model.query(h, known, torch.from_numpy(gaps).to(h.device)), table)
