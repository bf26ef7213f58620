"""Items without a training event come into served lists through their content, from the log to the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.artifact_writer import Parts, export
from export.from_run import place_cold_items
from export.learn_ranker import learn_ranker
from export.parity_gate import Probe
from loadtests.quality.cold_trial import cold_questions, without
from model.data.dataset import Dataset, sequences
from model.data.split import Split, leave_one_out
from model.evaluation.baselines import ItemCFConfig, fit_item_cf
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import engine_ranker
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.scorers.popularity import Popularity
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from tests.support.artifacts import random_parts
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

N_ITEMS = 40
COLD = [3, 17, 26]


@pytest.fixture(scope="module")
def whole() -> Dataset:
    return tiny_dataset(150, N_ITEMS)


@pytest.fixture(scope="module")
def reduced(whole: Dataset) -> tuple[Dataset, Split]:
    log = without(whole, [f"i{item}" for item in COLD])
    return log, leave_one_out(sequences(log))


def parts_of(dataset: Dataset, split: Split) -> Parts:
    """An untrained network, and signals fitted to the log."""
    item_cf = fit_item_cf(split.train, ItemCFConfig("cosine", 20, 0.8))
    popularity = Popularity.fit(split.train.item, N_ITEMS)
    data = SignalData(split.train, dataset, item_cf, popularity)
    parts = random_parts(random_network(n_items=N_ITEMS))
    place_cold_items(parts.model, data.cold)
    about = {"cold_items": data.cold.to_json()}
    return replace(parts, item_cf=item_cf, popularity=popularity, signals=fit_signals(data), ranker=None, about=about)


def test_cold_items_are_served_and_the_manifest_says_what_they_may_cost(
    whole: Dataset, reduced: tuple[Dataset, Split], tmp_path: Path
) -> None:
    dataset, split = reduced
    cold = np.array([split.sequences.item_ids.index(f"i{item}") for item in COLD])
    parts = parts_of(dataset, split)
    learned = learn_ranker(parts, split, tmp_path / "learned", exclude_history=False, say=lambda _: None)
    probe = Probe(EventArrays(cold, np.zeros(3, np.int64), np.arange(3) * 1000))
    published, gate = export(replace(parts, ranker=learned.weights), tmp_path, "float32", [probe])
    assert not gate.failures, "the gate and the reference read the same vectors of cold items as the graphs"

    artifact = Artifact.open(published)
    assert artifact.manifest["cold_items"]["items"] == len(COLD)
    said = json.loads(json.dumps(artifact.manifest["ranker"]))["learned"]
    for part in ("with_network", "without_network"):
        assert said[part]["cold"]["trials"][0]["bonus"] == 0
        assert 0 <= said[part]["cold"]["bonus"] <= 1
    bonus = said["with_network"]["cold"]["bonus"]
    assert learned.report["cold_bonus"] == bonus
    assert {group.get("cold", 0.0) for group in artifact.ranker.groups.values()} == {bonus}
    assert learned.report["weights"].get("cold", 0.0) == bonus

    asked = cold_questions(whole, dataset, split.train, [f"i{item}" for item in COLD]).test
    lists = engine_ranker(Engine(artifact, device="cpu"), Decoding("beam"))(
        Histories(asked.users, asked.history_end, split.sequences, exclude_history=False)
    )
    found = (lists[:, :10] == asked.target[:, None]).any(axis=1)
    assert found.mean() > 0.5, "its category is a ring of few items, and tells where an item belongs"
