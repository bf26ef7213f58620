"""Weights of a scorer without a network: all signals but path and dense score, learned on validation questions."""

from __future__ import annotations

import numpy as np

from model.data.split import Holdout, Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import history_of
from model.ranking.candidates import CandidateCollector, CandidateTable
from model.ranking.cold_bonus import learn_with_bonus
from model.ranking.learning import Learned, Progress
from model.ranking.proposals import Proposer
from service.artifact.scorers.ranker_weights import Weights
from service.artifact.scorers.signal_files import ITEM_CF
from service.signals.ranker import Ranker

# Validation questions asked; a few thousand pin the weights down (`curve` in the manifest).
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

    Raises:
        LearningError: A value is not finite.
    """
    asked = split.valid.sample(questions)
    proposed = proposed_for(signals, split, asked, kept=kept, has_time=has_time, exclude_history=exclude_history)
    return learn_from_signals(proposed)


def learn_from_signals(candidates: CandidateTable, progress: Progress | None = None) -> Learned:
    """Learns the weights, and the bonus of cold items, from what the signals propose.

    Args:
        candidates: Questions with what the signals propose, and their values.
        progress: Called after each step.

    Raises:
        LearningError: A value is not finite.
    """
    return learn_with_bonus(candidates, ITEM_CF_ALONE, progress=progress)


def proposed_for(
    signals: Ranker, split: Split, asked: Holdout, *, kept: int, has_time: bool, exclude_history: bool
) -> CandidateTable:
    """Returns what the signals propose for questions of a split, with their values."""
    proposer = Proposer.of(signals)
    histories = Histories(asked.users, asked.history_end, split.sequences, exclude_history)
    flat = CandidateCollector(proposer.names)
    for question, target in enumerate(asked.target.tolist()):
        history = history_of(histories.events(question), kept, has_time)
        proposal = proposer.propose(history, histories.excluded(question))
        flat.add(proposal.items, proposer.columns(proposal, proposal.items), target)
    return flat.done(np.zeros(len(asked), np.int64), ())
