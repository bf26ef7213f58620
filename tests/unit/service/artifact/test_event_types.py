"""Event types: what a model does not know is "other", and a learned scale weighs the items by their type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export import artifact_writer
from export.graphs.graph_writer import GraphDtype
from export.parity_gate import Probe
from model.errors import ConfigError
from model.network.scoring import encoder_input
from model.training.conditions import draw_loss_mask, type_shares
from model.training.config import TrainConfig
from service.artifact.features import EVENT_TYPES, START_TYPE, ContextVocabulary, EventArrays, Vocabulary, type_index
from tests.support.artifacts import random_parts
from tests.support.histories import random_history
from tests.support.networks import random_network

OLDER = START_TYPE - 1


def vocabulary(n_types: int) -> Vocabulary:
    return Vocabulary.of(["a", "b"], ContextVocabulary(), has_time=True, n_types=n_types)


def test_types_are_only_ever_appended() -> None:
    assert EVENT_TYPES == ("other", "view", "click", "cart", "purchase", "rating", "search")
    assert type_index("search") == 6


def test_a_type_that_came_after_the_model_is_other_and_its_start_token_stays_where_it_was() -> None:
    older = vocabulary(OLDER).events(["a", "b"], ["search", "view"], [1, 2])
    assert older.type.tolist() == [0, 1]
    assert vocabulary(OLDER).with_start(older).type.tolist() == [OLDER, 0, 1]
    newer = vocabulary(START_TYPE).events(["a", "b"], ["search", "view"], [1, 2])
    assert newer.type.tolist() == [6, 1]
    assert vocabulary(START_TYPE).with_start(newer).type.tolist() == [START_TYPE, 6, 1]


def test_a_log_with_newer_types_is_asked_of_an_older_model_as_it_is_served() -> None:
    events = EventArrays(np.array([0, 1]), np.array([6, 1]), np.array([1, 2]))
    assert encoder_input(events, 8, vocabulary(OLDER)).type.tolist() == [OLDER, 0, 1]
    assert encoder_input(events, 1, vocabulary(OLDER)).type.tolist() == [1]
    assert encoder_input(events, 2, vocabulary(OLDER)).type.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_learned_scale_weighs_an_event_s_item_by_its_type_in_the_graphs_too(
    tmp_path: Path, dtype: GraphDtype
) -> None:
    model = random_network(type_scale=True)
    assert model.type_scale is not None
    plain = random_network()
    with torch.no_grad():
        item, time_ms = torch.tensor([[3, 5]]), torch.tensor([[1000, 9000]])
        types = torch.tensor([[START_TYPE, type_index("purchase")]])
        assert torch.equal(model(item, types, time_ms), plain(item, types, time_ms)), "it starts at a scale of one"
        model.type_scale[type_index("view")] = 0.0
        viewed = torch.full_like(types, type_index("view"))
        assert torch.equal(model(item, viewed, time_ms), model(item + 1, viewed, time_ms)), "a scale of 0 hides items"
        model.type_scale.uniform_(0.2, 2.0)
    rng = np.random.default_rng(0)
    seen = [Probe(random_history(rng, n, model.config.n_items)) for n in (1, 5, 30)]
    _, result = artifact_writer.export(random_parts(model), tmp_path, dtype, seen)
    assert result.failures == []


def test_a_type_that_weighs_half_is_a_target_half_of_the_time() -> None:
    torch.manual_seed(0)
    target_type = torch.tensor([1, 4]).repeat(5000)
    kept = draw_loss_mask(target_type, type_shares({"view": 0.5, "purchase": 1.0}))
    assert bool(kept[target_type == 4].all())
    assert float(kept[target_type == 1].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert type_shares({"view": 1.0, "purchase": 4.0})[[1, 4]].tolist() == [0.25, 1.0], "the heaviest is always asked"
    assert type_shares({"view": 3.0})[0] == pytest.approx(1 / 3), "a type that is not named weighs 1"


def test_without_weights_every_target_is_asked_and_no_random_number_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert bool(draw_loss_mask(torch.arange(len(EVENT_TYPES)), type_shares({})).all())
    assert torch.equal(before, torch.get_rng_state())


def test_weights_of_unknown_types_or_below_zero_are_refused() -> None:
    for weights in ({"wish": 1.0}, {"view": -1.0}, dict.fromkeys(EVENT_TYPES, 0.0), {"view": "much"}):
        with pytest.raises(ConfigError, match="type_weights"):
            TrainConfig().updated({"type_weights": weights})
    assert TrainConfig.build(None, ["type_weights={view: 0.5}"]).type_weights == {"view": 0.5}
