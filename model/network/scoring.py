"""Hidden states and dense scores of stored histories, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary
from service.artifact.query_text import NO_GRAM, QUERY_GRAMS

BATCH = 64


def dense_logits(q: Tensor, table: Tensor) -> Tensor:
    """Returns the scores q · e_item [P, N] of P queries over the catalogue.

    They are not divided by √d: q is normalised, so the embedding of an item that is seen a few times would have to
    grow √d times as long before it could stand out.

    Args:
        q: [P, d] queries.
        table: [N + 2, d] item table of `GPT4Rec.item_table`; its last two rows are no items.
    """
    return q @ table[:-2].T


def encoder_input(events: EventArrays, receptive_field: int, vocabulary: Vocabulary) -> EventArrays:
    """Returns the part of a history that the encoder reads.

    That is the whole history after the start token, or the newest `receptive_field` events where it is longer. Event
    types that the model does not know become `other`.
    """
    events = replace(events, type=vocabulary.known_types(events.type))
    if len(events) < receptive_field:
        return vocabulary.with_start(events)
    return events.after(len(events) - receptive_field)


@torch.no_grad()
def encode_histories(
    model: GPT4Rec,
    histories: list[EventArrays],
    table: Tensor,
    context: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Encodes histories in batches of similar length.

    Args:
        model: The network, on the device of `table`.
        histories: Encoder inputs, each as `encoder_input` returns it.
        table: [N + 2, d] item table.
        context: [B, slots] context rows, for encoders that read user features.
        known: [N] the items that `table` has, and that histories name by their rows; None: all items.

    Returns:
        [B, d] the hidden state after each history.
    """
    device = table.device
    out = torch.zeros(len(histories), model.config.d_model, device=device)
    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = max(len(histories[row]) for row in rows)
        padded = np.zeros((3, len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            e = histories[row]
            for channel, values in enumerate((e.item, e.type, e.time_ms)):
                padded[channel, i, : len(e)] = values
        item, type_, time_ms = torch.from_numpy(padded).to(device)
        query = padded_queries([histories[row] for row in rows], longest)
        session = padded_sessions([histories[row] for row in rows], longest)
        length = torch.tensor([len(histories[row]) for row in rows], device=device)
        batch_context = None if context is None else context[rows]
        h = model.encode(
            item,
            type_,
            time_ms,
            length,
            table,
            context=batch_context,
            query=None if query is None else query.to(device),
            session=None if session is None else session.to(device),
            rows=known,
        )
        out[torch.tensor(rows, device=device)] = h
    return out


def padded_queries(histories: Sequence[EventArrays], longest: int) -> Tensor | None:
    """Returns the n-grams [B, longest, QUERY_GRAMS] of right-padded histories; None where none has any."""
    if all(events.query is None for events in histories):
        return None
    padded = np.full((len(histories), longest, QUERY_GRAMS), NO_GRAM, np.int64)
    for row, events in enumerate(histories):
        if events.query is not None:
            padded[row, : len(events)] = events.query
    return torch.from_numpy(padded)


def padded_sessions(histories: Sequence[EventArrays], longest: int) -> Tensor | None:
    """Returns the numbers [B, longest] of the sessions of right-padded histories; None where none has any."""
    if all(events.session is None for events in histories):
        return None
    padded = np.zeros((len(histories), longest), np.int64)
    for row, events in enumerate(histories):
        if events.session is not None:
            padded[row, : len(events)] = events.session
    return torch.from_numpy(padded)


@torch.no_grad()
def dense_scores(
    model: GPT4Rec, histories: list[EventArrays], context: IntArray | None = None, gap_ms: IntArray | None = None
) -> Tensor:
    """Returns the dense scores q · e_item [B, N] of every item after each history.

    Args:
        model: The network.
        histories: Encoder inputs, each as `encoder_input` returns it.
        context: [B, slots] context rows of the requests; None where nothing is known.
        gap_ms: [B] milliseconds between the last event and the request; None where unknown.
    """
    table = model.item_table()
    slots = np.zeros((len(histories), model.config.n_slots), np.int64) if context is None else context
    gaps = np.full(len(histories), GAP_UNKNOWN, np.int64) if gap_ms is None else gap_ms
    rows = torch.from_numpy(slots).to(table.device)
    h = encode_histories(model, histories, table, rows)
    return dense_logits(model.query(h, rows, torch.from_numpy(gaps).to(h.device)), table)
