"""Weights of a scorer without a network: all signals but path and dense score, learned on validation questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.split import Holdout, Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import history_of
from model.ranking.candidates import Candidates
from model.ranking.cold_bonus import choose_bonus, without_mark
from model.ranking.gather import FlatCandidates
from model.ranking.learning import Learned, Weights, learn
from model.ranking.proposals import Proposer
from service.artifact.ranker_weights import DEFAULT_GROUP
from service.artifact.signal_files import COLD, ITEM_CF
from service.signals.ranker import Ranker

# Validation questions; more would only cost time.
MAX_QUESTIONS = 6000

# The prior's mean, and the weights where nothing can be learned: item-CF ranks alone.
ITEM_CF_ALONE: Weights = {ITEM_CF: 1.0}


def learn_without_network(
    signals: Ranker,
    split: Split,
    *,
    kept: int,
    has_time: bool,
    exclude_history: bool = True,
    questions: int = MAX_QUESTIONS,
) -> Learned:
    """Learns the weights of a scorer without a network. Deterministic.

    Args:
        signals: The fitted signals; their weights do not matter.
        split: The split that the signals were fitted on.
        kept: Newest events of a history that the service keeps as they are.
        has_time: Whether the log has times.
        exclude_history: Whether lists leave out the items of the history.
        questions: The most validation questions to learn from.
    """
    asked = split.valid.sample(questions)
    candidates = candidates_of(signals, split, asked, kept=kept, has_time=has_time, exclude_history=exclude_history)
    learned = learn(without_mark(candidates), ITEM_CF_ALONE)
    weights = learned.weights or ITEM_CF_ALONE
    if COLD not in candidates.names:
        return replace(learned, weights=weights)
    bonus = choose_bonus(candidates, {DEFAULT_GROUP: weights})
    return replace(learned, weights=bonus.added_to(weights), about={**learned.about, COLD: bonus.to_json()})


def candidates_of(
    signals: Ranker, split: Split, asked: Holdout, *, kept: int, has_time: bool, exclude_history: bool
) -> Candidates:
    """Returns what the signals propose for questions of a split, with their values."""
    proposer = Proposer.of(signals)
    histories = Histories(asked.users, asked.history_end, split.sequences, exclude_history)
    flat = FlatCandidates(proposer.names)
    for question, target in enumerate(asked.target.tolist()):
        history = history_of(histories.events(question), kept, has_time)
        proposal = proposer.propose(history, histories.excluded(question))
        flat.add(proposal.items, proposer.columns(proposal, proposal.items), target)
    return flat.done(np.zeros(len(asked), np.int64), ())
