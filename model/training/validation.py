"""NDCG on the validation questions, by which epochs and settings are chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from model.data.split import Holdout, Split
from model.network.encoders.registry import receptive_field
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import dense_scores, recent
from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays, Vocabulary


def validation_ndcg(
    model: GPT4Rec, split: Split, vocabulary: Vocabulary, limit: int, *, exclude_history: bool = True
) -> float:
    """NDCG@10 of the dense score over the whole catalogue on at most `limit` users, without their history's items
    unless it is kept."""
    rows = np.arange(len(split.valid))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:limit])
    parts = [rows[at : at + 1024] for at in range(0, len(rows), 1024)]
    gains = [_gains(model, split, split.valid, part, vocabulary, exclude_history) for part in parts]
    return float(np.concatenate(gains).mean()) if gains else 0.0


def _gains(
    model: GPT4Rec, split: Split, holdout: Holdout, rows: IntArray, vocabulary: Vocabulary, exclude_history: bool = True
) -> npt.NDArray[np.float64]:
    """[rows] 1 / log2(rank + 1) of the target where it is among the first ten.

    Of equal scores the target comes last, and a score that is no number ranks nothing: a network that has collapsed
    or diverged gains nothing. A target of the history is not in the list where those are excluded, as in the
    evaluation.
    """
    log = split.sequences
    slices = [split.history(holdout, int(row)) for row in rows]
    histories = [EventArrays(log.item[s], log.type[s], log.time_ms[s]) for s in slices]
    seen = [recent(events, receptive_field(model.config), vocabulary) for events in histories]
    score = dense_scores(model, seen)
    wanted = torch.from_numpy(holdout.target[rows]).to(score.device)
    for row, events in enumerate(histories if exclude_history else []):
        score[row, torch.from_numpy(events.item).to(score.device)] = -torch.inf
    target = score.gather(1, wanted[:, None])
    rank = (~(score < target)).sum(dim=1).cpu().numpy() - 1
    listed = torch.isfinite(target[:, 0]).cpu().numpy() & (rank < 10)
    return np.asarray(np.where(listed, 1.0 / np.log2(rank + 2.0), 0.0))
