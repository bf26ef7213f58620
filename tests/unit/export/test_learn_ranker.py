"""The export learns the weights of the signals on validation, through the graphs that it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from export.artifact_writer import Parts
from export.learn_ranker import LearnedRanker, learn_ranker
from model.data.dataset import Dataset, sequences
from model.data.split import Split, leave_one_out
from model.evaluation.baselines import ItemCFConfig, fit_item_cf
from model.evaluation.evaluate import evaluate
from model.evaluation.rankers import engine_ranker
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from service.artifact.artifact import Artifact
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from tests.support.artifacts import random_parts, write_artifact
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

N_ITEMS = 40


def parts_of(dataset: Dataset, split: Split) -> Parts:
    """An untrained network, and signals fitted to the log."""
    item_cf = fit_item_cf(split.train, ItemCFConfig("cosine", 20, 0.8))
    popularity = Popularity.fit(split.train.item, N_ITEMS)
    signals = fit_signals(SignalData(split.train, dataset, item_cf, popularity))
    parts = random_parts(random_network(n_items=N_ITEMS))
    return replace(parts, item_cf=item_cf, popularity=popularity, signals=signals, ranker=None)


@pytest.fixture(scope="module")
def log() -> tuple[Dataset, Split]:
    dataset = tiny_dataset(150, N_ITEMS)
    return dataset, leave_one_out(sequences(dataset))


@pytest.fixture(scope="module")
def learned(log: tuple[Dataset, Split], tmp_path_factory: pytest.TempPathFactory) -> LearnedRanker:
    said: list[str] = []
    out = tmp_path_factory.mktemp("learned")
    found = learn_ranker(parts_of(*log), log[1], out, exclude_history=False, say=said.append)
    assert not list(out.iterdir()), "nothing is left of the graphs"
    assert said[0] == "gathering candidates: 150 of 150 questions"
    assert "learning the weights: step 1 of" in said[2]
    return found


def test_an_untrained_network_gets_little_weight_and_the_transitions_of_a_ring_much(learned: LearnedRanker) -> None:
    weights = learned.weights.groups["default"]
    assert weights["transitions"] > 1
    assert weights["transitions"] > 5 * abs(weights.get("dense", 0.0))
    assert learned.weights.without_network["transitions"] > 1
    assert learned.report["ndcg@10"] > learned.report["ndcg@10_of_the_prior"]
    assert "NDCG@10 on held-out questions" in learned.notes()[0]


def test_the_served_lists_are_better_by_what_was_learned(
    learned: LearnedRanker, log: tuple[Dataset, Split], tmp_path: Path
) -> None:
    dataset, split = log
    parts = parts_of(dataset, split)
    figures = {}
    for name, ranker in (("dense", None), ("learned", learned.weights)):
        engine = Engine(Artifact.open(write_artifact(tmp_path / name, replace(parts, ranker=ranker))), device="cpu")
        found = evaluate({name: engine_ranker(engine, Decoding("beam"))}, split, exclude_history=False, samples=1)
        figures[name] = found.systems[name].figures["ndcg@10"] or 0.0
    assert figures["learned"] > 2 * figures["dense"]


def test_the_manifest_says_what_the_weights_were_decided_by(learned: LearnedRanker) -> None:
    entry = json.loads(json.dumps(learned.weights.to_json()))
    assert RankerWeights.from_json(entry).groups == learned.weights.groups
    about = entry["learned"]
    assert about["candidate_recall"]["transitions"] > 0.5
    for part in (about["with_network"], about["without_network"]):
        assert part["questions"] == 150
        assert part["curve"][-1]["questions"] > 100
        assert set(part["ablation"]) >= {"transitions", "item_cf", "popularity"}
        assert len(part["covariance"]) == len(part["signals"])
    assert "path" not in about["without_network"]["ablation"]


def test_with_too_few_questions_the_dense_score_ranks(log: tuple[Dataset, Split], tmp_path: Path) -> None:
    dataset, split = log
    few = replace(split, valid=split.valid.rows(slice(0, 20)))
    found = learn_ranker(parts_of(dataset, split), few, tmp_path, exclude_history=True, say=lambda _: None)
    assert found.weights.groups == {"default": {"dense": 1.0}}
    assert found.weights.without_network == {"item_cf": 1.0}
    assert found.notes() == [
        "ranker: 16 answered questions of validation are too few to learn from, 100 are needed; lists are ranked by "
        "dense 1"
    ]


def test_the_report_says_what_the_network_and_cold_items_get(learned: LearnedRanker) -> None:
    everybody = learned.weights.groups["default"]
    assert learned.report["network_counts"] == bool({"path", "dense"} & set(everybody))

    def notes(**changes: object) -> list[str]:
        return replace(learned, report={**learned.report, **changes}).notes()

    assert len(notes(network_counts=True)) == 1
    assert notes(network_counts=False)[1].startswith("the network got no weight")
    first, second = notes(learned=False, cold_bonus=-0.5)
    assert "no other weights were better by more than chance on 150 answered questions" in first
    assert second.endswith("with a bonus of -0.5")
    assert notes(learned=False, cold_bonus=0.0)[1].endswith("without a bonus")
