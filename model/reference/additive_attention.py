"""What any h depends on, in torch: the LSTM's additive attention, the gradient by events, what was read from memory."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from model.network.encoders.base import Events
from model.network.encoders.lstm_attention import LSTMAttention
from model.network.gpt4rec import GPT4Rec
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays


@torch.no_grad()
def additive_attention(model: GPT4Rec, events: EventArrays) -> Tensor:
    """Returns the attention [n] of the last state of the encoder `lstm_attention`; it adds up to 1.

    Args:
        model: The network; it is set to evaluation mode.
        events: The n events that the encoder reads.
    """
    read = _embedded(model, events)
    encoder = cast(LSTMAttention, model.encoder)
    state = encoder.lstm(read.items + read.features)[0][0]
    score = encoder.score(torch.tanh(encoder.query(state[-1]) + encoder.key(state)))[:, 0]
    weight: Tensor = score.softmax(0)
    return weight


@torch.no_grad()
def memory_read(model: GPT4Rec, events: EventArrays) -> dict[str, Tensor]:
    """Returns what the last event read from memory, by the names of `Encoder.memory_read`; no batch axis.

    Args:
        model: The network; it is set to evaluation mode.
        events: The whole history, as the encoder reads it.
    """
    parts = _embedded(model, events)
    return {name: read[0] for name, read in model.encoder.memory_read(parts.items + parts.features, parts).items()}


def gradient_shares(
    model: GPT4Rec, events: EventArrays, features: IntArray | None = None, newest: int | None = None
) -> Tensor:
    """Returns the share [n] of each event in what moves h: the length of the derivative of h by the event's amount.

    The amount is a factor of the embedded event and of its attributes, so this is gradient × input for every dimension
    of h (Shrikumar et al., "Not just a black box", 2016).

    Args:
        model: The network; it is set to evaluation mode.
        events: The n events that the encoder reads.
        features: [slots] rows of the user's features, for encoders that read them; the other slots are 0.
        newest: How many events have a share of their own. The share of all before them comes first, also if there are
            none. None: all events have one.
    """
    place = torch.arange(len(events))
    if newest is not None:
        place = (place - len(events) + min(newest, len(events)) + 1).clamp(min=0)
    read = _embedded(model, events)
    user = None
    if model.describe is not None and features is not None:
        with torch.no_grad():
            user = model.describe(model.context.mixed(torch.from_numpy(features)[None]))

    def h(amount: Tensor) -> Tensor:
        by_event = amount[place][None, :, None]
        items, features = read.items * by_event, read.features * by_event
        attributes = None if read.attributes is None else read.attributes * by_event[..., None]
        scaled = replace(read, items=items, features=features, attributes=attributes)
        last: Tensor = model.encoder.last(items + features, scaled, user)[0]
        return last

    amounts = torch.ones(int(place[-1]) + 1)
    moved = torch.autograd.functional.jacobian(h, amounts).norm(dim=0)  # type: ignore[no-untyped-call]
    shares: Tensor = moved / moved.sum()
    return shares


@torch.no_grad()
def _embedded(model: GPT4Rec, events: EventArrays) -> Events:
    model.eval()
    item, kind, time_ms = (torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms))
    query = None if events.query is None else torch.from_numpy(events.query)[None]
    table = model.item_table()
    items, features = model.embed(table, item, kind, time_ms, query=query)
    session = None if events.session is None else torch.from_numpy(events.session)[None]
    read = Events(kind, time_ms, items, features, torch.tensor([len(events)]), session=session)
    if model.attributes is None:
        return read
    values, known = model.attributes(item, None, len(table))
    return replace(read, attributes=values, has_attribute=known)
