"""GPT4Rec as a ranker: the network in torch, and the artefact through the engine of the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from model.data.query_histories import without_searches
from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.evaluation.question_context import QuestionContext
from model.evaluation.segments import Segments
from model.network.encoders.registry import reads
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import BATCH, dense_scores, encoder_input
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary
from service.engine.baseline_engine import BaselineEngine
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob, Job, ListRequest
from service.engine.run_groups import result_of
from service.signals.item_values import NO_VALUES
from service.signals.ranker import Ranker as Signals
from service.signals.user_history import UserHistory

# Excluded items of all lists that are decoded at once, padding included; bounds the memory of a decoder run.
EXCLUDED_AT_ONCE = 1 << 17


def network_ranker(
    model: GPT4Rec,
    vocabulary: Vocabulary,
    depth: int = DEPTH,
    questions: QuestionContext | None = None,
    newest: int | None = None,
) -> Ranker:
    """Returns a ranker of the whole catalogue by the dense score in torch, the reference for the decoder's candidates.

    Args:
        model: The network.
        vocabulary: The event types that the model knows.
        depth: Length of the lists.
        questions: What the model knows of each question besides the history; None for nothing.
        newest: How many of the newest events the model reads; None for all.
    """

    def rank(histories: Histories) -> IntArray:
        events = [histories.events(i, vocabulary) for i in range(len(histories))]
        if newest is not None:
            events = [e.after(max(0, len(e) - newest)) for e in events]
        inputs = [encoder_input(e, reads(model.config), vocabulary) for e in events]
        if questions is None:
            score, allowed = dense_scores(model, inputs), None
        else:
            users = histories.users
            score = dense_scores(model, inputs, questions.context[users], questions.gap_ms[users])
            allowed = questions.mask(users)
        if allowed is not None:
            score[~torch.from_numpy(allowed).to(score.device)] = -torch.inf
        for i in range(len(histories)):
            score[i, torch.from_numpy(histories.excluded(i)).to(score.device)] = -torch.inf
        best = score.topk(min(depth, score.shape[1]), dim=1)
        lists = np.full((len(histories), depth), -1, np.int64)
        lists[:, : best.indices.shape[1]] = torch.where(torch.isfinite(best.values), best.indices, -1).cpu().numpy()
        return lists

    return rank


def engine_ranker(
    engine: Engine | BaselineEngine,
    decoding: Decoding,
    k: int = DEPTH,
    seed: int = 0,
    *,
    signals: bool = True,
    gap_ms: IntArray | None = None,
) -> Ranker:
    """Returns a ranker through the exported graphs, with the same jobs as the service.

    The context is unknown. Where segments have weights of their own, the default policies place the user.

    Args:
        engine: The opened artefact.
        decoding: The decoding strategy.
        k: Length of the lists, at most `DEPTH`.
        seed: Seed of sampled lists; the user's row is added to it.
        signals: Whether the user's signals rank the lists as well.
        gap_ms: [users] milliseconds from each user's last event to the request; None: unknown.
    """
    jobs = EngineJobs(engine, decoding, signals=signals)

    def job(histories: Histories, i: int) -> Job:
        user = int(histories.users[i])
        gap = GAP_UNKNOWN if gap_ms is None else int(gap_ms[user])
        events = histories.events(i, engine.artifact.vocabulary)
        return jobs.of(events, histories.excluded(i), k, seed + user, gap)

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
            for i, result in zip(rows, engine.run([job(histories, i) for i in rows]), strict=True):
                items = result_of(result).decoded.items
                lists[i, : len(items)] = items
        return lists

    return rank


class EngineJobs:
    """Makes the jobs of lists as the service makes them, for histories whose requests have no context."""

    def __init__(self, engine: Engine | BaselineEngine, decoding: Decoding | None, *, signals: bool = True) -> None:
        """Reads what the artefact ranks by.

        Args:
            engine: The opened artefact.
            decoding: The decoding strategy; None: that of the user's segment by the default policies.
            signals: Whether the user's signals rank the lists as well.
        """
        artifact = engine.artifact
        self._engine, self._decoding, self._signals = engine, decoding, signals
        self._context = artifact.vocabulary.context.encode({})
        self._ranker = Signals.of(artifact.signals, artifact.ranker)
        self._segments = Segments(artifact.catalogue, engine.receptive_field)
        self._grouped = len(artifact.ranker.groups) > 1

    def of(self, events: EventArrays, excluded: IntArray, k: int, seed: int = 0, gap_ms: int = GAP_UNKNOWN) -> Job:
        """Returns the job of one list.

        Args:
            events: All events of the user, oldest first, by the artefact's indices; items that it does not know have
                the index of the unknown item.
            excluded: [m] items that must not be in the list.
            k: Length of the list.
            seed: Seed of a sampled list.
            gap_ms: Milliseconds from the last event to the request.
        """
        engine, vocabulary = self._engine, self._engine.artifact.vocabulary
        items = without_searches(events, vocabulary.unknown_item)
        known = events.item[events.item < vocabulary.unknown_item]
        segment = self._segments.of(known) if self._grouped or self._decoding is None else ""
        group = self._ranker.group(segment) if self._grouped else 0
        asked = self._signals and self._ranker.uses_history(group)
        history = history_of(items, engine.receptive_field, vocabulary.has_time) if asked else UserHistory()
        return Job(
            encode=encoding_of(engine, events),
            request=ListRequest(
                context=self._context,
                gap_ms=gap_ms,
                decoding=self._decoding or self._segments.decoding(segment),
                k=k,
                excluded=excluded,
                seed=seed,
                signals=self._ranker.user(history, group) if asked else NO_VALUES,
                group=group,
            ),
        )


def encoding_of(engine: Engine | BaselineEngine, events: EventArrays) -> EncodeJob:
    """Returns the job that encodes a user's history as the service does.

    These are the newest events, up to the receptive field; all events where states remember what the log trims.

    Args:
        engine: The opened artefact.
        events: All events of the user, oldest first.
    """
    start = 0 if engine.state_layout.remembers_trimmed else max(0, len(events) - engine.receptive_field)
    kept = events.after(start)
    types = engine.artifact.vocabulary.known_types(kept.type)
    return EncodeJob(events=replace(kept, type=types), from_start=start == 0)


def history_of(events: EventArrays, receptive_field: int, has_time: bool) -> UserHistory:
    """Returns what the signals of a service know of a user after these events.

    Args:
        events: All events of the user, oldest first.
        receptive_field: Number of newest events that the service keeps as they are; it remembers the items of the
            others.
        has_time: Whether the log has times. If not, the events count as one second apart.
    """
    times = events.time_ms if has_time else np.arange(len(events), dtype=np.int64) * 1000
    return UserHistory.of(events.item, times, receptive_field)


def batches_of(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yields rows of similar length, few of them where they are long: the decoder compares each with its exclusions.

    Args:
        lengths: [rows] number of excluded items of each row.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == BATCH or (len(batch) + 1) * lengths[row] > EXCLUDED_AT_ONCE):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
