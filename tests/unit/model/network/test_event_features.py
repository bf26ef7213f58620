"""Attention among the features of an event equals a plain loop over the features that it has."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import Events
from model.network.encoders.event_features import FeatureAttention
from model.network.gpt4rec import GPT4Rec
from model.training.losses import Sample
from tests.support.networks import random_network

SLOTS, ROWS = 4, 10


def a_network() -> GPT4Rec:
    model = random_network(
        encoder="encoder_decoder", scale=1.0, window=12, attribute_slots=SLOTS, n_attribute_rows=ROWS
    )
    rows = torch.randint(0, ROWS, (model.config.n_items, SLOTS))
    assert model.attributes is not None
    model.attributes.set_rows(torch.where(torch.rand(rows.shape) < 0.6, rows, 0))
    return model


def features_of(c: NetworkConfig, seed: int) -> Events:
    torch.manual_seed(seed)
    kind = torch.zeros(2, 5, dtype=torch.int64)
    items, features, attributes = (torch.randn(2, 5, *more, c.d_model) for more in ((), (), (SLOTS,)))
    return Events(
        kind, kind, items, features, attributes=attributes, has_attribute=torch.rand(2, 5, SLOTS) < 0.5
    )  # fmt: skip


def by_loop(layer: FeatureAttention, events: Events, b: int, t: int) -> torch.Tensor:
    """z [d] of one event, from the features that it has and nothing else."""
    assert events.attributes is not None and events.has_attribute is not None
    there = [f for f in range(SLOTS) if events.has_attribute[b, t, f]]
    x = torch.stack([events.items[b, t], events.features[b, t], *(events.attributes[b, t, f] for f in there)])
    y, attention = layer.norm(x), layer.attention
    parts = []
    for head in range(attention.heads):
        query, key, value = (
            part(y).chunk(attention.heads, -1)[head] for part in (attention.query, attention.key, attention.value)
        )
        parts.append(F.softmax(query @ key.T * query.shape[1] ** -0.5, dim=-1) @ value)
    z: torch.Tensor = (x + attention.out(torch.cat(parts, -1))).mean(0)
    return z


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_the_vector_of_an_event_is_that_of_the_features_it_has_in_any_order(seed: int) -> None:
    model = a_network()
    layer, events = cast(FeatureAttention, model.encoder.of_features), features_of(model.config, seed)
    found = layer(events)
    for b in range(2):
        for t in range(5):
            assert torch.allclose(found[b, t], by_loop(layer, events, b, t), atol=1e-5)
    assert events.attributes is not None and events.has_attribute is not None
    order = torch.randperm(SLOTS)
    other = replace(events, attributes=events.attributes[:, :, order], has_attribute=events.has_attribute[:, :, order])
    assert torch.allclose(layer(other), found, atol=1e-5)


@torch.no_grad()
def test_a_table_of_some_items_gives_the_states_of_the_whole_one_and_another_is_refused() -> None:
    model = a_network()
    item = torch.tensor([[41, 3, 40, 17, 3]])  # the start token, and an unknown item in the middle
    kind, time_ms = torch.tensor([[7, 1, 1, 4, 1]]), torch.arange(5)[None] * 60_000
    whole = model(item, kind, time_ms)
    nothing = torch.zeros(0, dtype=torch.int64)
    sample = Sample.of(item, nothing, nothing, 40)
    table = model.item_table(sample.rows)
    some = model(sample.place[item], kind, time_ms, table, rows=sample.rows)
    assert torch.allclose(some, whole, atol=1e-5)
    with pytest.raises(ValueError, match="item table has 4 rows, the table of attributes 42"):
        model(sample.place[item], kind, time_ms, table)


@torch.no_grad()
def test_attributes_move_the_state_of_the_events_from_theirs_on() -> None:
    model = a_network()
    item, kind, time_ms = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.int64), torch.arange(3)[None]
    before = model(item, kind, time_ms)
    assert model.attributes is not None
    model.attributes.rows[6] = torch.tensor([9, 8, 0, 0])
    after = model(item, kind, time_ms)
    assert torch.allclose(after[:, 0], before[:, 0]) and not torch.allclose(after[:, 1:], before[:, 1:], atol=1e-3)
