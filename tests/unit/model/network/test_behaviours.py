"""The encoder of behaviours: each stream is encoded as if it were alone, and queries are part of what is read."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from model.data.dataset import sequences
from model.network.behaviour_streams import STREAMS, stream_of_types
from model.network.encoders.base import Events
from model.network.encoders.behaviours import Behaviours
from model.training.batch_loss import BatchLoss
from model.training.batches import BatchPlan, cut
from model.training.conditions import Conditions
from model.training.config import TrainConfig
from model.training.losses import proposal
from service.artifact.features import EVENT_TYPES, ContextVocabulary
from service.artifact.query_text import query_grams
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network


def test_every_event_type_has_one_stream_and_searches_have_their_own() -> None:
    streams = stream_of_types(len(EVENT_TYPES))
    assert [name for name, s in zip(EVENT_TYPES, streams, strict=False) if STREAMS[s] == "search"] == ["search"]
    assert streams[EVENT_TYPES.index("purchase")] == streams[EVENT_TYPES.index("cart")] == STREAMS.index("purchase")
    assert streams[-1] == STREAMS.index("click"), "the start token"


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_the_state_of_a_stream_is_that_of_its_own_events_alone(seed: int) -> None:
    model = random_network(encoder="behaviours", window=12, scale=1.0)
    encoder = cast(Behaviours, model.encoder)
    torch.manual_seed(seed)
    kind = torch.randint(0, len(EVENT_TYPES), (1, 10))
    x = torch.randn(1, 10, model.config.d_model)
    found = encoder.states(x, Events(kind, kind, x, x))
    stream = torch.tensor(stream_of_types(len(EVENT_TYPES)))[kind[0]]
    for s in range(len(STREAMS)):
        for t in range(10):
            own = (stream[: t + 1] == s).nonzero()[:, 0]
            if len(own):
                alone = encoder.states(x[:, own], Events(kind[:, own], kind[:, own], x[:, own], x[:, own]))[0, -1, s]
                # The only thing that the state knows besides: how many events ago the stream last moved.
                ago = np.log1p(t - int(own[-1])) * encoder.age[s]
                assert torch.allclose(found[0, t, s], alone + ago, atol=1e-4)
            else:
                assert torch.allclose(found[0, t, s], encoder.empty[s] + np.log1p(t + 1) * encoder.age[s], atol=1e-5)
    assert float(encoder.weights().sum()) == pytest.approx(1.0)
    assert torch.allclose(encoder.fused(found), (found * encoder.weights()[:, None]).sum(2))


@torch.no_grad()
def test_a_query_changes_the_state_and_a_padded_row_of_it_does_not() -> None:
    model = random_network(encoder="behaviours", window=12, scale=1.0, query_buckets=64)
    item, kind, time_ms = torch.tensor([[3, 40]]), torch.tensor([[1, 6]]), torch.tensor([[0, 1000]])
    query = torch.zeros(1, 2, 24, dtype=torch.int64)
    nothing = model(item, kind, time_ms, query=query)
    assert torch.allclose(nothing, model(item, kind, time_ms))
    query[0, 1] = torch.from_numpy(query_grams("tea", 64))
    asked = model(item, kind, time_ms, query=query)
    assert torch.allclose(asked[:, 0], nothing[:, 0]) and not torch.allclose(asked[:, 1], nothing[:, 1])


def test_the_loss_of_a_stream_asks_for_the_next_item_of_its_own_kind() -> None:
    config = TrainConfig(
        encoder="behaviours", size="tiny", max_length=16, behaviour_losses={"purchase": 1.0, "click": 0.5}
    )
    train = sequences(tiny_dataset(users=8))
    model = random_network(encoder="behaviours", n_items=train.n_items, sizes=(5, 4, 6))
    context = ContextVocabulary(fields=("gender",), values={"gender": {"F": 1, "M": 2}})
    conditions = Conditions.of(tiny_dataset(users=8), train, context, [[]] * train.n_items)
    loss = BatchLoss(model, conditions, config, proposal(train.item, np.ones(train.n_items, bool)))
    stream_of = stream_of_types(len(EVENT_TYPES))
    for batch in BatchPlan(cut(train, 8, 4), 200, 0).batches(0, train.n_items + 1):
        found = {s: (at, target) for s, at, target in loss._stream_targets(batch)}
        for s in (0, 1):
            wanted = []
            for row in range(len(batch.item)):
                for t in range(batch.item.shape[1]):
                    later = [
                        int(batch.target[row, j])
                        for j in range(t, batch.item.shape[1])
                        if batch.target[row, j] >= 0 and stream_of[int(batch.target_type[row, j])] == s
                    ]
                    if stream_of[int(batch.type[row, t])] == s and later:
                        wanted.append(later[0])
            assert found[s][1].tolist() == wanted
        plain = BatchLoss(model, conditions, TrainConfig(encoder="behaviours", size="tiny"), loss.log_q)
        torch.manual_seed(0)
        alone = plain(batch)[0]
        torch.manual_seed(0)
        assert loss(batch)[0].item() > alone.item()
