"""Candidates of validation questions, through the engine over the written graphs and through the signals alone.

With the network a question is asked twice. The candidates of the first list are the beam's and the best by q · e. Those
of the second one are proposed by the other signals in turn. Together they are what a list can hold, whatever the
weights are, with the paths' log-probabilities from the graph that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model.data.split import Holdout, Split
from model.evaluation.evaluate import Histories
from model.evaluation.rankers import batches_of, encoding_of, history_of
from model.evaluation.segments import Segments
from model.ranking.candidates import CandidateCollector, CandidateTable
from model.ranking.proposals import Proposal, Proposer
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.features import GAP_UNKNOWN
from service.artifact.scorers.ranker_weights import DENSE, PATH
from service.engine import jobs
from service.engine.candidates import Candidates
from service.engine.decoding import Decoding, joined_width, search_sizes
from service.engine.engine import Engine
from service.engine.run_groups import result_of
from service.signals.item_values import NO_VALUES, ItemValues

# Beam width of the first list, and of the second, whose beam is not needed.
_BEAM, _NARROW = 64, 8
# A strategy whose lists have the most candidates.
_WIDE = Decoding("temperature")
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

    with_network: CandidateTable
    without_network: CandidateTable
    recall: dict[str, float]


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
    collected = _Collected(proposer, segments)
    for start in range(0, len(questions), _CHUNK):
        part = questions.rows(slice(start, start + _CHUNK))
        histories = Histories(part.users, part.history_end, split.sequences, exclude_history)
        proposals = _proposals(engine, proposer, histories)
        lists = _decoded(engine, histories, proposals)
        for i, (target, proposal, (first, second)) in enumerate(
            zip(part.target.tolist(), proposals, lists, strict=True)
        ):
            collected.add(histories.items(i), target, proposal, first, second)
        if report is not None:
            report(min(start + _CHUNK, len(questions)), len(questions))
    return collected.gathered()


class _Collected:
    """What the questions so far have given."""

    def __init__(self, proposer: Proposer, segments: Segments) -> None:
        self._proposer, self._segments = proposer, segments
        self._network = CandidateCollector((PATH, DENSE, *proposer.names))
        self._alone = CandidateCollector(proposer.names)
        self._group: list[int] = []
        self._hits = dict.fromkeys((*proposer.proposing, "network", "with_network", "without_network"), 0)

    def add(
        self, history: IntArray, target: int, proposal: Proposal, by_network: Candidates, by_signals: Candidates
    ) -> None:
        """Adds a question: its history, the answer, and who proposes what."""
        self._group.append(self._segments.names.index(self._segments.of(history)))
        for name, best in proposal.best.items():
            self._hits[name] += target in best
        self._hits["network"] += target in by_network.items
        items, scores = _union(by_network, by_signals)
        values = np.hstack([scores, self._proposer.columns(proposal, items)])
        self._hits["with_network"] += self._network.add(items, values, target)
        values = self._proposer.columns(proposal, proposal.items)
        self._hits["without_network"] += self._alone.add(proposal.items, values, target)

    def gathered(self) -> Gathered:
        """Returns everything, with the share of the targets that each found."""
        group = np.array(self._group, np.int64)
        recall = {name: round(int(count) / max(1, len(group)), 5) for name, count in self._hits.items()}
        with_network = self._network.done(group, self._segments.names)
        return Gathered(with_network, self._alone.done(group, ()), recall)


def _proposals(engine: Engine, proposer: Proposer, histories: Histories) -> list[Proposal]:
    has_time = engine.artifact.vocabulary.has_time
    return [
        proposer.propose(history_of(histories.events(i), engine.receptive_field, has_time), histories.excluded(i))
        for i in range(len(histories))
    ]


def _decoded(
    engine: Engine, histories: Histories, proposals: Sequence[Proposal]
) -> list[tuple[Candidates, Candidates]]:
    """Returns the candidates of both lists of every history."""
    unknown = engine.artifact.vocabulary.context.encode({})
    known = engine.artifact.vocabulary
    dense = bool(engine.artifact.manifest.get("dense_candidates")) or engine.artifact.cells is not None
    joined = search_sizes(_NARROW, joined_width(1, _NARROW, sampled=True), sampled=True, dense=dense).joined

    def job(i: int, h: FloatArray, weights: tuple[float, float], signals: ItemValues, width: int) -> jobs.DecodeJob:
        request = jobs.ListRequest(
            context=unknown, gap_ms=GAP_UNKNOWN, decoding=_WIDE, k=1, excluded=histories.excluded(i), width=width,
            signals=signals, weights=weights, candidates=True,
        )  # fmt: skip
        return jobs.DecodeJob(h=h, request=request)

    found: dict[int, tuple[Candidates, Candidates]] = {}
    for rows in batches_of([len(histories.items(i)) for i in range(len(histories))]):
        h = [
            result_of(state).h
            for state in engine.encode([encoding_of(engine, histories.events(i, known)) for i in rows])
        ]
        asked = [job(i, h[at], (0.0, 1.0), NO_VALUES, _BEAM) for at, i in enumerate(rows)]
        asked += [job(i, h[at], (0.0, 0.0), proposals[i].in_turn(joined), _NARROW) for at, i in enumerate(rows)]
        lists = [result_of(result).candidates for result in engine.decode(asked)]
        for i, first, second in zip(rows, lists[: len(rows)], lists[len(rows) :], strict=True):
            if first is not None and second is not None:
                found[i] = (first, second)
    return [found[i] for i in range(len(histories))]


def _union(first: Candidates, second: Candidates) -> tuple[IntArray, FloatArray]:
    """Returns the items [c] of both, ascending, and [c, 2] their path log-probabilities and dense scores."""
    both = first.with_more(second)
    items, at = np.unique(both.items, return_index=True)
    scores: FloatArray = np.column_stack([both.log_probs[at], both.dense[at]]).astype(np.float32)
    return items, scores
