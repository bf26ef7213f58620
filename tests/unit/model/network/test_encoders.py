"""What every encoder promises, GPT4Rec's own and those it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.dataset import sequences
from model.evaluation.baselines import fit_baselines
from model.evaluation.evaluate import evaluate, popularity_ranker
from model.evaluation.rankers import network_ranker
from model.network.encoders.registry import ENCODERS, encoder_class, receptive_field
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encode_histories
from model.training.batches import BatchPlan, cut
from model.training.config import TrainConfig
from model.training.masking import mask_events
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.features import EventArrays
from tests.support.data_builders import tiny_dataset
from tests.support.histories import random_history
from tests.support.networks import random_network

NEXT = [name for name in ENCODERS if encoder_class(name).task == "next"]


def a_network(encoder: str) -> GPT4Rec:
    # Nothing is rounded: a key on the border of two float16 numbers may fall to either side, by who is beside it.
    return random_network(encoder=encoder, scale=1.0, state_dtype="float32")


def history(seed: int, n: int) -> EventArrays:
    return random_history(np.random.default_rng(seed), n, 40)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_learns_through_the_trainer_and_its_run_opens_again(tmp_path: Path, encoder: str) -> None:
    settings = TrainConfig(
        encoder=encoder, size="tiny", batch_tokens=200, learning_rate=1e-2, warmup_steps=5, max_epochs=6, max_length=16,
        network={"dropout": 0.1},
    )  # fmt: skip
    trainer = Trainer(tiny_dataset(users=120), Path("data"), tmp_path, settings)
    losses = [epoch["loss"] for epoch in trainer.fit().history]
    assert losses[-1] < 0.9 * losses[0]
    model = Run.open(tmp_path).model()
    assert type(model.encoder) is encoder_class(encoder)
    systems = {
        encoder: network_ranker(model, trainer.vocabulary),
        "popular": popularity_ranker(fit_baselines(trainer.split).popularity),
    }
    figures = evaluate(systems, trainer.split, "test", samples=1).systems
    assert figures[encoder].figures["ndcg@10"] > 1.5 * figures["popular"].figures["ndcg@10"]  # type: ignore[operator]


@pytest.mark.parametrize("encoder", NEXT)
def test_encoders_of_the_next_item_do_not_see_what_comes_later(encoder: str) -> None:
    model, events = a_network(encoder), history(1, 8)
    arrays = [torch.from_numpy(a)[None] for a in (events.item, events.type, events.time_ms)]
    with torch.no_grad():
        whole = model(*arrays)
        part = model(*(a[:, :5] for a in arrays))
    assert torch.allclose(whole[:, :5], part, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_history_is_encoded_alike_alone_and_beside_longer_ones(encoder: str) -> None:
    model = a_network(encoder)
    field = receptive_field(model.config)
    histories = [history(seed, n) for seed, n in enumerate((1, 2, 5, min(field, 8)))]
    table = model.item_table().detach()
    together = encode_histories(model, histories, table)
    alone = torch.cat([encode_histories(model, [one], table) for one in histories])
    assert torch.allclose(together, alone, atol=1e-5)


def test_hidden_events_are_what_is_asked_for_and_nothing_of_them_is_read() -> None:
    plan = BatchPlan(cut(sequences(tiny_dataset(users=20)), 8, 4), 200, 0)
    model = a_network("bert4rec")
    for batch in plan.batches(0, 31):
        torch.manual_seed(1)
        prepared = mask_events(batch, 0.3)
        assert prepared.masked is not None and prepared.length is not None
        real = torch.arange(prepared.item.shape[1]) < prepared.length[:, None]
        assert ((prepared.target >= 0) == prepared.masked).all() and (prepared.masked <= real).all()
        assert (prepared.target[prepared.masked] == prepared.item[prepared.masked]).all()
        rows = torch.arange(len(batch.item))
        last = prepared.length - 1
        assert prepared.masked[rows, last].all()
        assert (prepared.item[rows, last] == batch.target[rows, last - 1]).all()
        assert (prepared.item[:, :-1][real[:, 1:]] == batch.item[real[:, 1:]]).all()
        assert not (prepared.masked[:, 1:] & (batch.target < 0)).any() and not prepared.masked[:, 0].any()
        others = [
            torch.where(prepared.masked, value, found) for value, found in ((3, prepared.item), (1, prepared.type))
        ]
        with torch.no_grad():
            h = model(prepared.item, prepared.type, prepared.time_ms, **prepared.masking)
            assert torch.allclose(h, model(*others, prepared.time_ms, **prepared.masking), atol=1e-6)
