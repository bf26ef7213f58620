"""NDCG@10 on the validation part, by which the trainer chooses the best epoch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from model.data.query_histories import history_events
from model.data.split import Holdout, Split
from model.network.encoders.registry import reads
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_scores, encoder_input
from service.artifact.array_types import IntArray
from service.artifact.features import Vocabulary

# Scores held at once: a quarter of a GiB.
SCORES_AT_ONCE = 1 << 26


def validation_ndcg(
    model: GPT4Rec, split: Split, vocabulary: Vocabulary, limit: int, *, exclude_history: bool = True
) -> float:
    """Returns the mean NDCG@10 of the dense scores over the whole catalogue; see `validation_gains`."""
    gains = validation_gains(model, split, vocabulary, limit, exclude_history=exclude_history)
    return float(gains.mean()) if len(gains) else 0.0


def validation_gains(
    model: GPT4Rec,
    split: Split,
    vocabulary: Vocabulary,
    limit: int,
    *,
    exclude_history: bool = True,
    part: tuple[int, int] = (0, 1),
) -> npt.NDArray[np.float64]:
    """Returns the NDCG@10 [questions] of the dense scores over the whole catalogue, for each validation question.

    Args:
        model: The network.
        split: Its validation part is measured.
        vocabulary: The event types that the model knows.
        limit: Largest number of users; above it a fixed random sample is taken.
        exclude_history: Whether items of a user's history are left out of the ranking.
        part: Which questions are asked: (i, n) every n-th from the i-th on.
    """
    rows = questions_asked(split, limit)[part[0] :: part[1]]
    at_once = max(1, min(1024, SCORES_AT_ONCE // split.sequences.n_items))
    parts = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    gains = [_gains(model, split, split.valid, part, vocabulary, exclude_history) for part in parts]
    return np.concatenate(gains) if gains else np.zeros(0)


def questions_asked(split: Split, limit: int) -> IntArray:
    """Returns the rows of the validation part that are asked: all of them, or a fixed random sample of `limit`."""
    rows = np.arange(len(split.valid))
    return rows if len(rows) <= limit else np.sort(np.random.default_rng(0).permutation(rows)[:limit])


def gains_of_ranks(rank: npt.NDArray[np.int64], listed: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Returns 1 / log2(rank + 1) of ranks counted from 0, below ten and of targets that are `listed`, else 0."""
    return np.asarray(np.where(listed & (rank < 10), 1.0 / np.log2(rank + 2.0), 0.0))


def _gains(
    model: GPT4Rec, split: Split, holdout: Holdout, rows: IntArray, vocabulary: Vocabulary, exclude_history: bool = True
) -> npt.NDArray[np.float64]:
    """Returns 1 / log2(rank + 1) [rows] of the targets among the first ten, else 0.

    The target ranks last among equal scores and a score that is not finite is not ranked, so a network that has
    collapsed or diverged scores 0. A target from the history is not ranked where the history is excluded, as in the
    evaluation.
    """
    log = split.sequences
    ends = [(int(holdout.users[row]), int(holdout.history_end[row])) for row in rows]
    histories = [history_events(log, user, end, vocabulary) for user, end in ends]
    inputs = [encoder_input(events, reads(model.config), vocabulary) for events in histories]
    score = dense_scores(model, inputs)
    targets = torch.from_numpy(holdout.target[rows]).to(score.device)
    for row, (user, end) in enumerate(ends if exclude_history else []):
        score[row, torch.from_numpy(log.item[log.offsets[user] : end]).to(score.device)] = -torch.inf
    target = score.gather(1, targets[:, None])
    rank = (~(score < target)).sum(dim=1).cpu().numpy() - 1
    return gains_of_ranks(rank, torch.isfinite(target[:, 0]).cpu().numpy())
