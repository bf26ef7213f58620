"""A ranking of the whole catalogue by token paths alone, a beam without an end."""

from __future__ import annotations

import numpy as np
import torch

from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.network.encoders.registry import receptive_field
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encode_histories, encoder_input
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, Vocabulary

PATHS_AT_ONCE = 1 << 14  # token paths that are scored at once


@torch.no_grad()
def path_scores(model: GPT4Rec, q: torch.Tensor) -> torch.Tensor:
    """Returns log p(path of the item | q) [P, N] of every item for queries [P, d]."""
    n, codes = model.config.n_items, model.codes
    rows = []
    for one in torch.split(q, max(1, PATHS_AT_ONCE // n)):
        every = one[:, None].expand(-1, n, -1)
        logits = model.path_logits(every, codes.expand(len(one), -1, -1))
        levels = [
            x.log_softmax(-1).gather(2, codes[None, :, level, None].expand(len(one), -1, -1))[..., 0]
            for level, x in enumerate(logits)
        ]
        rows.append(torch.stack(levels).sum(0))
    return torch.cat(rows)


def path_ranker(model: GPT4Rec, vocabulary: Vocabulary, newest: int | None = None) -> Ranker:
    """Returns a ranker of the whole catalogue by the probability of token paths alone, a beam without an end.

    Args:
        model: The network.
        vocabulary: The event types that the model knows.
        newest: How many of the newest events the model reads; None for all.
    """

    @torch.no_grad()
    def rank(histories: Histories) -> IntArray:
        events = [histories.events(i) for i in range(len(histories))]
        if newest is not None:
            events = [e.after(max(0, len(e) - newest)) for e in events]
        inputs = [encoder_input(e, receptive_field(model.config), vocabulary) for e in events]
        h = encode_histories(model, inputs, model.item_table())
        nothing = torch.zeros(len(h), model.config.n_slots, dtype=torch.int64)
        score = path_scores(model, model.query(h, nothing, torch.full((len(h),), GAP_UNKNOWN)))
        for i in range(len(histories)):
            score[i, torch.from_numpy(histories.excluded(i))] = -torch.inf
        best = score.topk(min(DEPTH, score.shape[1]), dim=1)
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        lists[:, : best.indices.shape[1]] = torch.where(torch.isfinite(best.values), best.indices, -1).numpy()
        return lists

    return rank
