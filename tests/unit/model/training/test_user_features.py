"""Three ways to tell a model of its user: in the decoder's norm, as a token before the history, in every layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.network.encoders.registry import encoder_class
from model.network.gpt4rec import GPT4Rec
from tests.support.histories import random_history
from tests.support.networks import random_network

READS = ("prefix", "injected")
TOLD = ("gpt4rec", *READS)
N_SLOTS = 3  # of random networks; the first is the user's


def network(encoder: str) -> GPT4Rec:
    model = random_network(encoder=encoder, scale=1.0, n_fields=1)
    with torch.no_grad():
        model.context.modulate.weight.normal_(std=0.5)
    return model


def states(model: GPT4Rec, n: int, context: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """h of the whole history [T, d] and as it is asked for [d]."""
    e = random_history(np.random.default_rng(3), n, 40)
    item, type_, time_ms = (torch.from_numpy(a)[None] for a in (e.item, e.type, e.time_ms))
    with torch.no_grad():
        h = model(item, type_, time_ms, context=context)[0]
        return h, model.encode(item, type_, time_ms, torch.tensor([n]), context=context)[0]


def context(*rows: int) -> torch.Tensor:
    return torch.tensor([rows])


@pytest.mark.parametrize("encoder", READS)
def test_a_user_s_features_reach_every_event_however_far_back(encoder: str) -> None:
    model = network(encoder)
    n = 3 * model.config.layers * model.config.window
    for unknown, known in zip(states(model, n, context(0, 0, 0)), states(model, n, context(1, 0, 0)), strict=True):
        assert bool(((unknown - known).abs().reshape(-1, model.config.d_model).amax(1) > 1e-6).all())


@pytest.mark.parametrize("encoder", TOLD)
def test_what_belongs_to_the_request_alone_never_reaches_the_encoder(encoder: str) -> None:
    model = network(encoder)
    assert torch.equal(states(model, 9, context(0, 0, 0))[1], states(model, 9, context(0, 2, 3))[1])
    if encoder in READS:
        assert torch.equal(states(model, 9, None)[1], states(model, 9, context(0, 0, 0))[1]), "unknown is nothing added"


@pytest.mark.parametrize("encoder", TOLD)
def test_features_are_told_in_one_place_only(encoder: str) -> None:
    model = network(encoder)
    h, gap = torch.randn(1, model.config.d_model), torch.tensor([-1])
    with torch.no_grad():
        asked = [model.query(h, context(feature, 2, 3), gap) for feature in (0, 1)]
        scenes = [model.query(h, context(1, scene, 3), gap) for scene in (0, 2)]
    assert torch.equal(*asked) == (encoder in READS)
    assert not torch.equal(*scenes), "the request's own context always enters there"


def test_states_that_depend_on_features_are_not_carried_on() -> None:
    assert encoder_class("gpt4rec").streams
    assert not any(encoder_class(name).streams for name in READS)


def test_a_prefix_that_is_nothing_changes_little_and_no_window_hides_it() -> None:
    model = network("prefix")
    far = 5 * model.config.window
    near, late = states(model, far, context(1, 0, 0))[0], states(model, far, context(0, 0, 0))[0]
    change = (near - late).norm(dim=1)
    assert float(change[-1]) > 0.1 * float(change.mean()), "as much at the end as anywhere"
