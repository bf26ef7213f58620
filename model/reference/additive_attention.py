"""The additive attention of the LSTM's last state, and the gradient of any h by its events, in torch."""

from __future__ import annotations

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
    items, features, _ = _embedded(model, events)
    encoder = cast(LSTMAttention, model.encoder)
    state = encoder.lstm(items + features)[0][0]
    score = encoder.score(torch.tanh(encoder.query(state[-1]) + encoder.key(state)))[:, 0]
    weight: Tensor = score.softmax(0)
    return weight


def gradient_shares(model: GPT4Rec, events: EventArrays, features: IntArray | None = None) -> Tensor:
    """Returns the share [n] of each event in what moves h: the length of the derivative of h by the event's amount.

    The amount is a factor of the embedded event, so this is gradient × input for every dimension of h (Shrikumar et
    al., "Not just a black box", 2016).

    Args:
        model: The network; it is set to evaluation mode.
        events: The n events that the encoder reads.
        features: [slots] rows of the user's features, for encoders that read them; the other slots are 0.
    """
    items, about, parts = _embedded(model, events)
    user = None
    if model.describe is not None and features is not None:
        with torch.no_grad():
            user = model.describe(model.context.mixed(torch.from_numpy(features)[None]))

    def h(amount: Tensor) -> Tensor:
        scaled = (items * amount[None, :, None], about * amount[None, :, None])
        kind, time_ms = parts
        length = torch.tensor([len(events)])
        last: Tensor = model.encoder.last(sum(scaled[1:], scaled[0]), Events(kind, time_ms, *scaled, length), user)[0]
        return last

    moved = torch.autograd.functional.jacobian(h, torch.ones(len(events))).norm(dim=0)  # type: ignore[no-untyped-call]
    shares: Tensor = moved / moved.sum()
    return shares


def _embedded(model: GPT4Rec, events: EventArrays) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    model.eval()
    item, kind, time_ms = (torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms))
    query = None if events.query is None else torch.from_numpy(events.query)[None]
    with torch.no_grad():
        items, features = model.embed(model.item_table(), item, kind, time_ms, query=query)
    return items, features, (kind, time_ms)
