"""Rankers of GPT4Rec for the evaluation: the network itself, and the artefact through the served engine."""

from __future__ import annotations

import numpy as np
import torch

from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.evaluation.question_context import Asking
from model.network.encoders.registry import receptive_field
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import BATCH, dense_scores, recent
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary
from service.engine.baseline_engine import BaselineEngine
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob, Job, ListRequest


def network_ranker(
    model: GPT4Rec, vocabulary: Vocabulary, depth: int = DEPTH, asked: Asking | None = None, newest: int | None = None
) -> Ranker:
    """Exhaustive ranking by the dense score in torch: what the decoder's candidates are measured against.

    With `asked` the model knows that of each question, otherwise nothing but the history; of that it reads all, or the
    `newest` so many events.
    """

    def rank(histories: Histories) -> IntArray:
        events = [histories.events(i) for i in range(len(histories))]
        if newest is not None:
            events = [e.after(max(0, len(e) - newest)) for e in events]
        seen = [recent(e, receptive_field(model.config), vocabulary) for e in events]
        if asked is None:
            score, allowed = dense_scores(model, seen), None
        else:
            score = dense_scores(model, seen, asked.context[histories.users], asked.gap_ms[histories.users])
            allowed = asked.mask(histories.users)
        if allowed is not None:
            score[~torch.from_numpy(allowed).to(score.device)] = -torch.inf
        for i in range(len(histories)):
            score[i, torch.from_numpy(histories.excluded(i)).to(score.device)] = -torch.inf
        best = score.topk(min(depth, score.shape[1]), dim=1)
        lists = np.full((len(histories), depth), -1, np.int64)
        lists[:, : best.indices.shape[1]] = torch.where(torch.isfinite(best.values), best.indices, -1).cpu().numpy()
        return lists

    return rank


def engine_ranker(engine: Engine | BaselineEngine, decoding: Decoding, k: int = DEPTH, seed: int = 0) -> Ranker:
    """Lists of `k` through the exported graphs: the very jobs the service makes, with gap and context unknown."""
    vocabulary = engine.artifact.vocabulary
    unknown = vocabulary.context.encode({})

    def job(histories: Histories, i: int) -> Job:
        events = histories.events(i)
        start = max(0, len(events) - engine.receptive_field)
        kept = events.after(start)
        known = EventArrays(kept.item, vocabulary.known_types(kept.type), kept.time_ms)
        return Job(
            encode=EncodeJob(events=known, from_start=start == 0),
            request=ListRequest(
                context=unknown,
                gap_ms=GAP_UNKNOWN,
                decoding=decoding,
                k=k,
                excluded=histories.excluded(i),
                seed=seed + int(histories.users[i]),
            ),
        )

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        order = sorted(range(len(histories)), key=lambda i: len(histories.items(i)))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            for i, result in zip(rows, engine.run([job(histories, i) for i in rows]), strict=True):
                if isinstance(result, Exception):
                    raise result
                items = result.decoded.items
                lists[i, : len(items)] = items
        return lists

    return rank
