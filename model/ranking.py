"""Rankers of GPT4Rec for the evaluation: the network itself, and the artefact through the served engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.features import GAP_UNKNOWN, EventArrays, Vocabulary
from model.asking import Asking
from model.data import IntArray
from model.data_split import Holdout, Split
from model.evaluate import DEPTH, Histories, Ranker
from model.losses import dense_logits
from model.network import GPT4Rec
from service.baseline_engine import BaselineEngine
from service.decoding import Decoding
from service.engine import Engine, Job

BATCH = 64


def recent(events: EventArrays, receptive_field: int, vocabulary: Vocabulary) -> EventArrays:
    """What the encoder is given of a history: all of it behind the start token, or as much as it can see."""
    events = replace(events, type=vocabulary.known_types(events.type))
    if len(events) < receptive_field:
        return vocabulary.with_start(events)
    return events.after(len(events) - receptive_field)


@torch.no_grad()
def encode_histories(
    model: GPT4Rec, histories: list[EventArrays], table: Tensor, context: Tensor | None = None
) -> Tensor:
    """[B, d] h after each history, in batches of like length; context [B, slots] for encoders that read it."""
    device = table.device
    out = torch.zeros(len(histories), model.config.d_model, device=device)
    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    for at in range(0, len(order), BATCH):
        rows = order[at : at + BATCH]
        longest = max(len(histories[row]) for row in rows)
        padded = np.zeros((3, len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            e = histories[row]
            for channel, values in enumerate((e.item, e.type, e.time_ms)):
                padded[channel, i, : len(e)] = values
        item, type_, time_ms = torch.from_numpy(padded).to(device)
        length = torch.tensor([len(histories[row]) for row in rows], device=device)
        given = None if context is None else context[rows]
        out[torch.tensor(rows, device=device)] = model.encode(item, type_, time_ms, length, table, context=given)
    return out


@torch.no_grad()
def dense_scores(
    model: GPT4Rec, histories: list[EventArrays], context: IntArray | None = None, gap_ms: IntArray | None = None
) -> Tensor:
    """[B, N] q · e_item. What is not given of the request, context [B, slots] and gap [B], is unknown."""
    table = model.item_table()
    slots = np.zeros((len(histories), model.config.n_slots), np.int64) if context is None else context
    gaps = np.full(len(histories), GAP_UNKNOWN, np.int64) if gap_ms is None else gap_ms
    known = torch.from_numpy(slots).to(table.device)
    h = encode_histories(model, histories, table, known)
    return dense_logits(model.query(h, known, torch.from_numpy(gaps).to(h.device)), table)


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
    seen = [recent(events, model.config.receptive_field, vocabulary) for events in histories]
    score = dense_scores(model, seen)
    wanted = torch.from_numpy(holdout.target[rows]).to(score.device)
    for row, events in enumerate(histories if exclude_history else []):
        score[row, torch.from_numpy(events.item).to(score.device)] = -torch.inf
    target = score.gather(1, wanted[:, None])
    rank = (~(score < target)).sum(dim=1).cpu().numpy() - 1
    listed = torch.isfinite(target[:, 0]).cpu().numpy() & (rank < 10)
    return np.asarray(np.where(listed, 1.0 / np.log2(rank + 2.0), 0.0))


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
        seen = [recent(e, model.config.receptive_field, vocabulary) for e in events]
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
        return Job(
            None,
            kept.item,
            vocabulary.known_types(kept.type),
            kept.time_ms,
            start == 0,
            unknown,
            GAP_UNKNOWN,
            decoding,
            k,
            0,
            histories.excluded(i),
            seed + int(histories.users[i]),
        )

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        order = sorted(range(len(histories)), key=lambda i: len(histories.items(i)))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            for i, result in zip(rows, engine.run([job(histories, i) for i in rows]), strict=True):
                if isinstance(result, Exception):
                    raise result
                lists[i, : len(result.items)] = result.items
        return lists

    return rank
