"""Candidates of questions: what is proposed joins, with the values of the graphs and of the signals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.dataset import sequences
from model.data.split import Split, leave_one_out
from model.evaluation.segments import Segments
from model.network.encoders.registry import receptive_field
from model.network.scoring import encode_histories, encoder_input
from model.ranking.candidates import CandidateTable
from model.ranking.gather import Gathered, gather
from model.ranking.proposals import TOP, Proposal, Proposer
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.engine.engine import Engine
from service.signals.item_values import NO_VALUES
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory
from tests.support.artifacts import random_parts, write_artifact
from tests.support.data_builders import tiny_dataset

N_ITEMS = 30


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(Artifact.open(write_artifact(tmp_path_factory.mktemp("gather"), random_parts())), device="cpu")


@pytest.fixture(scope="module")
def split(engine: Engine) -> Split:
    n = len(engine.artifact.catalogue)
    log = sequences(tiny_dataset(20, n))
    return leave_one_out(replace(log, item_ids=list(engine.artifact.catalogue.item_ids)))


def proposer(engine: Engine) -> Proposer:
    signals = Ranker.of(engine.artifact.signals, engine.artifact.ranker)
    return Proposer(signals.user_signals, signals.item_signals)


def gathered(engine: Engine, split: Split, *, exclude_history: bool = True) -> Gathered:
    segments = Segments(engine.artifact.catalogue, engine.receptive_field)
    return gather(split, split.valid, engine, proposer(engine), segments, exclude_history=exclude_history)


def items_of(candidates: CandidateTable, dense: np.ndarray, question: int) -> list[int]:
    """The items of a question's candidates, told by their dense scores."""
    rows = slice(candidates.offsets[question], candidates.offsets[question + 1])
    at = candidates.names.index("dense")
    return [int(np.abs(dense - value).argmin()) for value in candidates.values[rows, at]]


@pytest.mark.parametrize("exclude_history", [True, False])
def test_candidates_have_the_networks_scores_and_the_signals_values(
    engine: Engine, split: Split, exclude_history: bool
) -> None:
    found = gathered(engine, split, exclude_history=exclude_history)
    candidates, log = found.with_network, split.sequences
    model, vocabulary, asked = random_parts().model, engine.artifact.vocabulary, proposer(engine)
    table = model.item_table().detach()
    for question in range(0, len(split.valid), 4):
        history = split.history(split.valid, question)
        events = EventArrays(log.item[history], log.type[history], log.time_ms[history])
        inputs = [encoder_input(events, receptive_field(model.config), vocabulary)]
        with torch.no_grad():
            h = encode_histories(model, inputs, table)
            q = model.query(h, torch.zeros(1, model.config.n_slots, dtype=torch.long), torch.tensor([GAP_UNKNOWN]))
            dense = (q @ table[:-2].T)[0].numpy()
            items = items_of(candidates, dense, question)
            logits = model.path_logits(q.expand(len(items), -1), model.codes[items])
            path = sum(
                torch.log_softmax(of_level, -1).gather(1, model.codes[items][:, [level]])[:, 0]
                for level, of_level in enumerate(logits)
            )
        rows = slice(candidates.offsets[question], candidates.offsets[question + 1])
        assert len(set(items)) == len(items)
        np.testing.assert_allclose(candidates.values[rows, 1], dense[items], atol=1e-3)
        np.testing.assert_allclose(candidates.values[rows, 0], path, atol=1e-3)
        seen = set(events.item.tolist())
        assert not (exclude_history and seen & set(items))
        user = UserHistory.of(events.item, events.time_ms, engine.receptive_field)
        excluded = np.unique(events.item) if exclude_history else np.zeros(0, np.int64)
        proposal = asked.propose(user, excluded)
        np.testing.assert_allclose(candidates.values[rows, 2:], asked.columns(proposal, np.array(items)))
        target = int(split.valid.target[question])
        row = candidates.target[question]
        assert (row >= 0) == (target in items)
        assert row < 0 or items[row - candidates.offsets[question]] == target


def test_every_signal_says_how_many_of_the_targets_it_finds(engine: Engine, split: Split) -> None:
    found = gathered(engine, split)
    names = proposer(engine).names
    assert set(found.recall) == {*names, "network", "with_network", "without_network"}
    assert found.recall["with_network"] == found.with_network.answered.mean()
    assert found.recall["without_network"] == found.without_network.answered.mean()
    assert found.recall["with_network"] >= found.recall["network"]
    assert found.without_network.names == names
    assert found.with_network.names == ("path", "dense", *names)
    assert set(found.with_network.groups) >= {"new", "active"}


def test_nothing_asked_is_nothing_found(engine: Engine, split: Split) -> None:
    nobody = split.valid.rows(slice(0, 0))
    found = gather(
        split, nobody, engine, proposer(engine), Segments(engine.artifact.catalogue, 10), exclude_history=True
    )
    assert len(found.with_network) == len(found.without_network) == 0


def test_a_user_without_history_is_proposed_what_is_popular(engine: Engine) -> None:
    proposal = proposer(engine).propose(UserHistory(), np.array([3, 5]))
    assert not len(proposal.best["item_cf"])
    assert 0 < len(proposal.best["popularity"]) <= TOP
    assert not {3, 5} & set(proposal.best["popularity"].tolist())


@given(st.lists(st.lists(st.integers(0, 12), unique=True, max_size=8), max_size=4), st.integers(1, 9))
def test_signals_propose_in_turn(lists: list[list[int]], most: int) -> None:
    best = {str(n): np.array(items, np.int64) for n, items in enumerate(lists)}
    found = Proposal([NO_VALUES], best).in_turn(most)
    place = {item: min(one.index(item) for one in lists if item in one) for one in lists for item in one}
    assert len(found) == min(most, len(place))
    assert found.items.tolist() == sorted(set(found.items.tolist()))
    for item, value in zip(found.items.tolist(), found.values.tolist(), strict=True):
        assert value == pytest.approx(1 / (1 + place[item]))
    left = [place[item] for item in place if item not in found.items]
    assert not left or min(left) >= max(place[item] for item in found.items.tolist())
