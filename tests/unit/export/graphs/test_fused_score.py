"""What signals do to lists, and the candidates that explain them. `test_decoder_graph` compares the score itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.parity_gate import Probe, check
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN
from service.artifact.graphs import graph_names as names
from service.artifact.scorers.ranker_weights import RankerWeights
from service.engine.decode.ranking import Ranking
from service.engine.decoding import ONE_OF_EACH, Decoding, signals_max
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from service.signals.item_values import NO_VALUES, ItemValues
from tests.support.artifacts import random_parts, write_artifact
from tests.support.histories import random_history
from tests.support.networks import random_network

N_ITEMS = 2700  # more than signals count of
BEAM = Decoding("beam")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Artefacts of one network, by whether their graphs score the whole catalogue."""
    parts = random_parts(random_network(seed=6, n_items=N_ITEMS, sizes=(15, 15, 15)))
    return {
        dense: write_artifact(tmp_path_factory.mktemp("artifact"), replace(parts, dense=dense))
        for dense in (True, False)
    }


@pytest.fixture(scope="module", params=[True, False], ids=["whole catalogue", "signals alone"])
def engine(request: pytest.FixtureRequest, folders: dict[bool, Path]) -> Engine:
    return Engine.open(folders[request.param], device="cpu", threads=1)


@pytest.fixture(scope="module")
def padded(folders: dict[bool, Path]) -> Engine:
    return Engine.open(folders[True], device="cpu", threads=1, pad=True)


def listed(engine: Engine, *requests: dict[str, Any]) -> list[DecodedList]:
    h = np.random.default_rng(0).standard_normal(engine.artifact.network["d_model"]).astype(np.float32)
    base = ListRequest(context=np.zeros(3, np.int64), gap_ms=GAP_UNKNOWN, decoding=BEAM, k=10)
    found = engine.decode([DecodeJob(h=h, request=replace(base, **changes)) for changes in requests])
    assert all(isinstance(one, DecodedList) for one in found), found
    return [one for one in found if isinstance(one, DecodedList)]


def signals(values: dict[int, float]) -> ItemValues:
    items = sorted(values)
    return ItemValues(np.array(items, np.int64), np.array([values[item] for item in items], np.float32))


@pytest.mark.parametrize("decoding", ONE_OF_EACH, ids=str)
def test_a_strong_signal_brings_an_item_in_from_anywhere(engine: Engine, decoding: Decoding) -> None:
    before = set(listed(engine, {"decoding": decoding})[0].items.tolist())
    far = [item for item in range(0, N_ITEMS, 97) if item not in before][:3]
    strong = signals({item: 500.0 - 40 * place for place, item in enumerate(far)})
    after = listed(engine, {"decoding": decoding, "signals": strong})[0]
    assert after.items[:3].tolist() == far
    shut = listed(engine, {"decoding": decoding, "signals": strong, "excluded": np.array(far[1:])})[0]
    assert shut.items[0] == far[0]
    assert not set(far[1:]) & set(shut.items.tolist())


def test_a_signal_adds_its_value_to_the_score_and_nothing_else(engine: Engine) -> None:
    plain = listed(engine, {"candidates": True})[0]
    moved = dict.fromkeys(plain.items[::2].tolist(), 0.25)
    after = listed(engine, {"signals": signals(moved)})[0]
    scores = dict(zip(plain.items.tolist(), plain.scores.tolist(), strict=True))
    for item, score in zip(after.items.tolist(), after.scores.tolist(), strict=True):
        if item in scores:
            assert score == pytest.approx(scores[item] + moved.get(item, 0.0), abs=1e-4)


def test_what_a_filter_leaves_has_its_signals_however_many_larger_ones_the_filter_hides(engine: Engine) -> None:
    chosen = {"category": ["a"], "brand": ["x"]}
    number = engine.filter_id(chosen)
    allowed = engine.filters.build(chosen).allowed
    values = {item: 300.0 for item in range(N_ITEMS) if not allowed[item]}
    assert len(values) > signals_max(dense=True)
    least = int(np.flatnonzero(allowed)[-1])
    found = listed(engine, {"signals": signals(values | {least: 200.0}), "filter_id": number})[0]
    assert found.items[0] == least
    assert allowed[found.items].all()


def test_candidates_come_only_to_who_asks_and_explain_the_scores(engine: Engine) -> None:
    values = signals({item: 3.0 + item / N_ITEMS for item in range(0, N_ITEMS, 5)})
    weights = (0.7, 1.3)
    ask: dict[str, Any] = {"signals": values, "weights": weights, "k": 20}
    without, found = listed(engine, ask, ask | {"candidates": True})
    assert without.candidates is None
    assert without.items.tolist() == found.items.tolist()
    candidates = found.candidates
    assert candidates is not None
    assert len(set(candidates.items.tolist())) == len(candidates.items) >= 20
    offset = np.log(np.exp(candidates.log_probs).sum()) - np.log(np.exp(candidates.dense).sum())
    network = weights[0] * candidates.log_probs + weights[1] * (candidates.dense + offset)
    score = network + values.of(candidates.items) * candidates.counted
    order = np.argsort(-score)[:20]
    np.testing.assert_array_equal(candidates.items[order], found.items)
    np.testing.assert_allclose(score[order], found.scores, atol=1e-4)
    np.testing.assert_array_equal(listed(engine, ask)[0].items, found.items)


def test_candidates_tell_whose_signals_were_too_small_to_count(engine: Engine) -> None:
    most = signals_max(dense=engine._tables.traits.dense)
    rng = np.random.default_rng(1)
    values = ItemValues(np.arange(N_ITEMS), rng.permutation(np.linspace(-1, 1, N_ITEMS)).astype(np.float32))
    found = listed(engine, {"signals": values, "weights": (1.0, 0.5), "k": 30, "candidates": True})[0]
    candidates = found.candidates
    assert candidates is not None
    largest = np.argsort(-np.abs(values.values))[:most]
    np.testing.assert_array_equal(candidates.counted, np.isin(candidates.items, largest))
    assert 0 < candidates.counted.sum() < len(candidates.items)
    offset = np.log(np.exp(candidates.log_probs).sum()) - np.log(np.exp(candidates.dense).sum())
    network = candidates.log_probs + 0.5 * (candidates.dense + offset)
    score = network + values.of(candidates.items) * candidates.counted
    np.testing.assert_allclose(np.sort(score)[: -len(found.items) - 1 : -1], found.scores, atol=1e-4)


@pytest.mark.parametrize(("signals_of_a_user", "taken_in"), [(0, 1), (1, 1), (2, 512), (513, 2048), (N_ITEMS, 2048)])
def test_where_shapes_are_padded_any_number_of_signals_becomes_one_of_few(
    padded: Engine, monkeypatch: pytest.MonkeyPatch, signals_of_a_user: int, taken_in: int
) -> None:
    sizes: list[int] = []
    run = padded._decoder._run

    def watched(sampled: bool, feeds: Any, *rest: Any) -> Any:
        sizes.append(feeds[names.SIGNAL_ITEM].shape[1])
        return run(sampled, feeds, *rest)

    monkeypatch.setattr(padded._decoder, "_run", watched)
    values = ItemValues(np.arange(signals_of_a_user), np.ones(signals_of_a_user, np.float32))
    listed(padded, {"signals": values})
    assert sizes == [taken_in]


def test_signals_of_items_and_weights_are_those_of_the_group(engine: Engine) -> None:
    bias = np.zeros((2, N_ITEMS), np.float32)
    bias[1, 7] = 400.0
    before = Ranking.of_artifact(engine.artifact)
    try:
        engine.set_weights([(0.5, 0.5), (1.0, 0.0)], bias)
        other: dict[str, Any] = {"group": 1, "signals": signals({7: 1.0})}
        first, second, own = listed(engine, {}, other, other | {"weights": (0.5, 0.5)})
        assert 7 not in first.items
        assert second.items[0] == own.items[0] == 7
        assert second.scores[1] == pytest.approx(second.log_probs[1], abs=1e-4), "only the path counts"
        assert own.items[1:].tolist() == first.items[:9].tolist(), "a request's own weights come before its group's"
        bad = engine.decode([DecodeJob(h=np.zeros(32, np.float32), request=replace(_plain(), group=2))])[0]
        assert isinstance(bad, Exception)
    finally:
        engine.set_weights(before.weights.tolist(), before.bias)


def _plain() -> ListRequest:
    return ListRequest(context=np.zeros(3, np.int64), gap_ms=GAP_UNKNOWN, decoding=BEAM, k=10, signals=NO_VALUES)


@pytest.mark.parametrize("dense", [True, False], ids=["whole catalogue", "signals alone"])
def test_the_gate_compares_lists_of_every_group_of_the_artefact(tmp_path: Path, dense: bool) -> None:
    model = random_network(seed=6)
    groups = {"default": {"path": 0.4, "dense": 0.8}, "new": {"path": 1.0, "dense": 0.1, "popularity": -3.0}}
    weights = RankerWeights(("item_cf", "popularity"), groups)
    parts = replace(random_parts(model), dense=dense, ranker=weights)
    artifact = Artifact.open(write_artifact(tmp_path, parts))
    ranking = Ranking.of_artifact(artifact)
    np.testing.assert_allclose(ranking.weights, [[0.4, 0.8], [1.0, 0.1]], rtol=1e-6)
    assert not ranking.bias[0].any()
    assert len(np.unique(ranking.bias[1])) > 1
    probes = [Probe(random_history(np.random.default_rng(n), 2 * n, 40)) for n in range(4)]
    assert check(model, artifact, probes, "float32").failures == []
