"""Candidates of validation questions, through the engine over the written graphs and through the signals alone.

With the network a question is asked twice. The candidates of the first list are the beam's and the best by q · e. Those
of the second one are proposed by the other signals in turn. Together they are what a list can hold, whatever the
weights are, with the paths' log-probabilities from the graph that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from model.data.split import Holdout, Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import batches_of, encoding_of, history_of
from model.evaluation.segments import Segments
from model.ranking.candidates import Candidates
from model.ranking.cold_bonus import without_mark
from model.ranking.proposals import Proposal, Proposer
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN
from service.artifact.ranker_weights import DENSE, PATH
from service.engine import jobs
from service.engine.candidates import Candidates as Listed
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.run_groups import result_of
from service.signals.item_values import NO_VALUES, ItemValues

# Beam width of the first list, and of the second, whose beam is not needed.
_BEAM, _NARROW = 64, 8
# A strategy whose lists have the most candidates, and how many join its beam.
_WIDE, _JOINED = Decoding("temperature"), 112
# Questions whose candidates are laid out at once.
_CHUNK = 512

Report = Callable[[int, int], None]  # (questions done, questions in all)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Candidates of the same questions.

    Attributes:
        with_network: What a list of the model can hold, with path, dense score and every signal.
        without_network: What the other signals propose, with their values.
        recall: Share of the targets among the best items of each signal, among the candidates of the beam and the dense
            score (`network`), and among all candidates with and without the network.
    """

    with_network: Candidates
    without_network: Candidates
    recall: dict[str, float]

    def without_marks(self) -> Gathered:
        """Returns the same without the mark of cold items, which stay candidates."""
        return Gathered(without_mark(self.with_network), without_mark(self.without_network), self.recall)


def gather(
    split: Split,
    questions: Holdout,
    engine: Engine,
    proposer: Proposer,
    segments: Segments,
    *,
    exclude_history: bool,
    report: Report | None = None,
) -> Gathered:
    """Asks questions of a split.

    Args:
        split: The split.
        questions: Some of its questions.
        engine: The written graphs; nothing but path and dense score may rank its lists yet.
        proposer: The signals besides the network.
        segments: Groups of users that may get weights of their own.
        exclude_history: Whether items of the history are no candidates.
        report: Called now and then.

    Raises:
        ServiceError: A run of a graph failed.
    """
    network, alone = FlatCandidates((PATH, DENSE, *proposer.names)), FlatCandidates(proposer.names)
    hits = dict.fromkeys((*proposer.proposing, "network", "with_network", "without_network"), 0)
    group = []
    for start in range(0, len(questions), _CHUNK):
        part = questions.rows(slice(start, start + _CHUNK))
        histories = Histories(part.users, part.history_end, split.sequences, exclude_history)
        proposals = _proposals(engine, proposer, histories)
        decoded = _decoded(engine, histories, proposals)
        for i, (target, proposal, (first, second)) in enumerate(
            zip(part.target.tolist(), proposals, decoded, strict=True)
        ):
            group.append(segments.names.index(segments.of(histories.items(i))))
            for name, items in proposal.best.items():
                hits[name] += target in items
            hits["network"] += target in first.items
            items, scores = _union(first, second)
            hits["with_network"] += network.add(items, np.hstack([scores, proposer.columns(proposal, items)]), target)
            items = proposal.items
            hits["without_network"] += alone.add(items, proposer.columns(proposal, items), target)
        if report is not None:
            report(min(start + _CHUNK, len(questions)), len(questions))
    recall = {name: round(int(count) / max(1, len(questions)), 5) for name, count in hits.items()}
    of_group = np.array(group, np.int64)
    return Gathered(network.done(of_group, segments.names), alone.done(of_group, ()), recall)


@dataclass(eq=False)
class FlatCandidates:
    """Candidates that are being collected."""

    names: tuple[str, ...]
    lengths: list[int] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    target: list[int] = field(default_factory=list)

    def add(self, items: IntArray, values: FloatArray, target: int) -> bool:
        """Adds the candidates [c] of a question, ascending, and [c, signals] values; returns whether one answers it."""
        place = int(items.searchsorted(target))
        hit = place < len(items) and int(items[place]) == target
        self.lengths.append(len(items))
        self.values.append(values)
        self.target.append(place if hit else -1)
        return hit

    def done(self, group: IntArray, groups: Sequence[str]) -> Candidates:
        """Returns what was collected, with the group of every question."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])
        values = np.concatenate([np.zeros((0, len(self.names)), np.float32), *self.values])
        target = np.array(self.target, np.int64)
        at = np.where(target >= 0, target + offsets[:-1], -1)
        return Candidates(self.names, offsets, values, at, group, tuple(groups))


def _proposals(engine: Engine, proposer: Proposer, histories: Histories) -> list[Proposal]:
    has_time = engine.artifact.vocabulary.has_time
    return [
        proposer.propose(history_of(histories.events(i), engine.receptive_field, has_time), histories.excluded(i))
        for i in range(len(histories))
    ]


def _decoded(engine: Engine, histories: Histories, proposals: Sequence[Proposal]) -> list[tuple[Listed, Listed]]:
    """Returns the candidates of both lists of every history."""
    unknown = engine.artifact.vocabulary.context.encode({})

    def job(i: int, h: FloatArray, weights: tuple[float, float], signals: ItemValues, width: int) -> jobs.DecodeJob:
        request = jobs.ListRequest(
            context=unknown, gap_ms=GAP_UNKNOWN, decoding=_WIDE, k=1, excluded=histories.excluded(i), width=width,
            signals=signals, weights=weights, candidates=True,
        )  # fmt: skip
        return jobs.DecodeJob(h=h, request=request)

    found: dict[int, tuple[Listed, Listed]] = {}
    for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
        h = [result_of(state).h for state in engine.encode([encoding_of(engine, histories.events(i)) for i in rows])]
        asked = [job(i, h[at], (0.0, 1.0), NO_VALUES, _BEAM) for at, i in enumerate(rows)]
        asked += [job(i, h[at], (0.0, 0.0), proposals[i].in_turn(_JOINED), _NARROW) for at, i in enumerate(rows)]
        lists = [result_of(result).candidates for result in engine.decode(asked)]
        for i, first, second in zip(rows, lists[: len(rows)], lists[len(rows) :], strict=True):
            if first is not None and second is not None:
                found[i] = (first, second)
    return [found[i] for i in range(len(histories))]


def _union(first: Listed, second: Listed) -> tuple[IntArray, FloatArray]:
    """Returns the items [c] of both, ascending, and [c, 2] their path log-probabilities and dense scores."""
    both = first.with_more(second)
    items, at = np.unique(both.items, return_index=True)
    scores: FloatArray = np.column_stack([both.log_probs[at], both.dense[at]]).astype(np.float32)
    return items, scores
