"""Weights of the scorer below the network: what its candidates are, and that they make better lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.data.dataset import Dataset, sequences
from model.data.split import Split, leave_one_out
from model.evaluation.baselines import fit_baselines
from model.evaluation.evaluate import Histories
from model.evaluation.metrics import ndcg, target_ranks
from model.evaluation.rankers import history_of
from model.ranking.without_network import learn_without_network, proposed_for
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.engine.fallback import Constraints, Fallback
from service.signals.ranker import Ranker
from tests.support.data_builders import tiny_dataset

KEPT = 50


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset(users=200)


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return leave_one_out(sequences(dataset))


@pytest.fixture(scope="module")
def signals(dataset: Dataset, split: Split) -> tuple[Ranker, Popularity, Fallback]:
    fitted = fit_baselines(split)
    parts = fit_signals(SignalData(split.train, dataset, fitted.item_cf, fitted.popularity))
    ranker = Ranker.of(parts, RankerWeights(tuple(parts), {"default": {}}))
    return ranker, fitted.popularity, Fallback.of(fitted.item_cf, fitted.popularity, ranker)


def test_the_proposed_for_a_question_have_the_values_that_a_request_would_have(
    split: Split, signals: tuple[Ranker, Popularity, Fallback]
) -> None:
    ranker, _, _ = signals
    asked = split.valid.rows(slice(0, 30))
    found = proposed_for(ranker, split, asked, kept=KEPT, has_time=True, exclude_history=True)
    histories = Histories(asked.users, asked.history_end, split.sequences)
    for question, target in enumerate(asked.target.tolist()):
        history = history_of(histories.events(question), KEPT, has_time=True)
        expected = [float(ranker.signal(s.name, history).of(np.array([target]))[0]) for s in ranker.user_signals]
        expected += [float(s.values[target]) for s in ranker.item_signals]
        assert (found.target[question] < 0) == (target in histories.excluded(question))
        if found.target[question] >= 0:
            assert found.values[found.target[question]].tolist() == pytest.approx(expected)


def test_what_is_learned_ranks_better_than_item_cf_alone(
    split: Split, signals: tuple[Ranker, Popularity, Fallback]
) -> None:
    ranker, popularity, below = signals
    learned = learn_without_network(ranker, split, kept=KEPT, has_time=True)
    assert learned.about["learned"] and set(learned.weights) - {"item_cf"}
    weights = replace(ranker.weights, without_network=learned.weights)
    fused = Fallback.of(below.item_cf, popularity, replace(ranker, weights=weights))
    histories = Histories(split.test.users, split.test.history_end, split.sequences)
    figures = []
    for scorer in (below, fused):
        lists = np.full((len(histories), 10), -1, np.int64)
        for row in range(len(histories)):
            history = history_of(histories.events(row), KEPT, has_time=True)
            lists[row] = scorer.by_history(history, 10, Constraints(None, histories.excluded(row))).items
        figures.append(float(ndcg(target_ranks(lists, split.test.target), 10).mean()))
    assert figures[1] > figures[0]


def test_too_few_questions_leave_item_cf_alone(split: Split, signals: tuple[Ranker, Popularity, Fallback]) -> None:
    ranker, _, _ = signals
    learned = learn_without_network(ranker, split, kept=KEPT, has_time=True, questions=10)
    assert learned.weights == {"item_cf": 1.0} and not learned.about["learned"]
