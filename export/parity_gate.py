"""The parity gate: compares the engine over the written files with torch and with the slow reference.

Every export has to pass it. All parts of the fused score are compared (`export.probe_rankings`). float32 graphs must
agree to `TOLERANCE` on log-probabilities and list the same items up to ties. float16 and int8 graphs round, so they are
held to a stated tolerance, to the overlap of their top 10 with the network's own, and to the NDCG@10 that the float32
graphs reach on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from export import nucleus_edges
from export.graphs.graph_writer import GraphDtype
from export.probe_rankings import ProbeRanking, probe_ranking
from model.network.encoders.registry import receptive_field, streams
from model.network.gpt4rec import GPT4Rec
from model.network.scoring import encoder_input
from model.reference.additive_attention import additive_attention, memory_read
from model.reference.attention_rollout import attention_rollout, history_rollout
from model.reference.cells import ReferenceCells
from model.reference.decoder import ReferenceDecoder, ScoredItem
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays, Vocabulary
from service.artifact.graphs.noise import id_hashes
from service.engine.decoding import ONE_OF_EACH, Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.interface import MemoryRead
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.engine.run_groups import result_of
from service.signals.ranker import Ranker

TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "int8": 2e-1}
OVERLAP_AT_10 = {"float32": 1.0, "float16": 0.99, "int8": 0.99}
# Hidden states may differ by ten times the tolerance, or by this much: a few stored keys lie half-way between two
# numbers of the state's type, and another order of summation rounds them the other way. Lists of float32 graphs are
# compared from the same state.
HIDDEN = {"float32": 0.0, "float16": 5e-3, "int8": 5e-2}
# A probe is compared on its newest events, this many times what the encoder reads. Torch compares every pair of them,
# so the memory grows with the square of their number.
PROBE_READS = 2
NDCG_WITHIN = 0.005  # of the float32 graphs' NDCG@10
MAX_FAILURES = 8


@dataclass(frozen=True)
class Probe:
    """A real history to compare on, with a context that a request might carry."""

    events: EventArrays
    context: dict[str, str] = field(default_factory=dict)
    gap_ms: int = GAP_UNKNOWN


@dataclass(frozen=True)
class Quality:
    """Measures NDCG@10 on a sample of validation users.

    Attributes:
        ndcg_at_10: Returns the NDCG@10 of an engine.
        float32: NDCG@10 of the float32 graphs.
        users: Size of the sample.
    """

    ndcg_at_10: Callable[[Engine], float]
    float32: float
    users: int

    @property
    def allowed(self) -> float:
        """The largest difference that passes.

        This is half a per cent or, for small samples, the difference that arises when the target of one user moves
        from the second place to the first.
        """
        return max(NDCG_WITHIN * self.float32, (1.0 - 1.0 / math.log2(3.0)) / self.users)


@dataclass
class GateResult:
    """The largest differences seen, the mean overlap, NDCG@10 if it was compared (graphs that round), and failures.

    `probes_cut` probes were longer than `probe_events_max` events, and compared on their newest ones.
    """

    dtype: str
    probes: int
    hidden_tolerance: float
    probe_events_max: int = 0
    probes_cut: int = 0
    hidden: float = 0.0
    log_prob: float = 0.0
    log_propensity: float = 0.0
    attention: float = 0.0
    overlap_at_10: float = 1.0
    ndcg_at_10: float | None = None
    ndcg_at_10_float32: float | None = None
    ndcg_allowed: float = 0.0
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures and their limits, as the manifest keeps them."""
        tolerance = {"tolerance": TOLERANCE[self.dtype], "overlap_at_10_min": OVERLAP_AT_10[self.dtype]}
        return {name: value for name, value in asdict(self).items() if name != "failures"} | tolerance

    def fail(self, message: str) -> None:
        """Adds a failure, up to `MAX_FAILURES` of them."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(message)


def check(
    model: GPT4Rec,
    artifact: Artifact,
    probes: Sequence[Probe],
    dtype: GraphDtype,
    quality: Quality | None = None,
) -> GateResult:
    """Compares the hidden state, the attention and the lists of every probe, under every strategy.

    If the encoder has a state, the engine encodes the second half of each history from the state of the first, so that
    the state's round trip is part of the comparison.

    Args:
        model: The network.
        artifact: The written artefact.
        probes: Histories to compare on; of longer ones the newest `PROBE_READS` × the receptive field.
        dtype: Precision of the graphs.
        quality: NDCG@10 to keep, for graphs that round.

    Returns:
        The differences; its `failures` are empty if the artefact passes.
    """
    hidden_tolerance = max(TOLERANCE[dtype] * 10, HIDDEN[model.config.state_dtype])
    most = PROBE_READS * receptive_field(model.config)
    result = GateResult(dtype, len(probes), hidden_tolerance, most, sum(len(probe.events) > most for probe in probes))
    probes = [replace(probe, events=probe.events.after(max(0, len(probe.events) - most))) for probe in probes]
    engine = Engine(artifact, device="cpu")
    hashes = id_hashes(artifact.catalogue.columns.ids)
    cells = None if artifact.cells is None else ReferenceCells(artifact.cells, artifact.trie)
    dense = bool(artifact.manifest.get("dense_candidates"))
    reference = ReferenceDecoder(model, hashes, dense=dense, cells=cells)
    ranker = Ranker.of(artifact.signals, artifact.ranker)
    overlaps = [
        overlap
        for number, probe in enumerate(probes)
        for overlap in _compare_probe(result, engine, reference, probe_ranking(ranker, number), probe, number)
    ]
    result.overlap_at_10 = float(np.mean(overlaps)) if overlaps else 1.0
    if quality is not None and dtype != "float32":
        result.ndcg_at_10, result.ndcg_at_10_float32 = quality.ndcg_at_10(engine), quality.float32
        result.ndcg_allowed = quality.allowed
    _judge(result)
    return result


def _compare_probe(
    result: GateResult,
    engine: Engine,
    reference: ReferenceDecoder,
    ranking: ProbeRanking,
    probe: Probe,
    number: int,
) -> list[float]:
    """Compares one history, whose number is also the seed of its lists. Returns the overlap of every strategy."""
    model, vocabulary = reference.model, engine.artifact.vocabulary
    everything = range(len(engine.artifact.catalogue))
    context = vocabulary.context.encode(probe.context)
    hidden = full_encode(model, _seen(model, vocabulary, probe.events), context)
    events, whole = _kept(engine, probe.events)
    h = _streamed(engine, events, context, from_start=whole).h
    result.hidden = max(result.hidden, float(np.abs(h - hidden.numpy()).max()))
    _explain(result, engine, model, probe.events, context, hidden)
    source = torch.from_numpy(h) if result.dtype == "float32" else hidden
    with torch.no_grad():
        q = model.query(source, torch.from_numpy(context), torch.tensor(probe.gap_ms))
    overlaps = []
    asked = ListRequest(
        context=context, gap_ms=probe.gap_ms, decoding=ONE_OF_EACH[0], k=10, seed=number,
        signals=ranking.signals, weights=ranking.weights, group=ranking.group,
    )  # fmt: skip
    for decoding in ONE_OF_EACH:
        request = replace(asked, decoding=decoding)
        got = result_of(engine.decode([DecodeJob(h=h, request=request)])[0])
        inside = _judge_law(result, got, decoding)
        asked_of = (q, decoding, request.k, request.run_width, everything, request.seed, ranking.scoring)
        want = reference.decode(*asked_of)
        if inside is not None and got.items.tolist() != [one.item for one in want]:
            want = reference.decode(*asked_of, inside=inside)
        overlaps.append(_compare(result, f"probe {number}, {decoding.strategy}", got, want))
    return overlaps


def _kept(engine: Engine, events: EventArrays) -> tuple[EventArrays, bool]:
    """Returns the events that the service would pass on, and whether they are the whole history."""
    start = 0 if engine.artifact.streaming else max(0, len(events) - engine.receptive_field)
    return events.after(start), start == 0


def _seen(model: GPT4Rec, vocabulary: Vocabulary, events: EventArrays) -> EventArrays:
    """Returns the events that the network is given."""
    if streams(model.config):
        return vocabulary.with_start(events)
    return encoder_input(events, receptive_field(model.config), vocabulary)


def _arrays(events: EventArrays) -> tuple[Any, Any, Any]:
    return events.item, events.type, events.time_ms


@torch.no_grad()
def full_encode(model: GPT4Rec, events: EventArrays, context: IntArray | None = None) -> torch.Tensor:
    """Returns h [d] after one torch pass over the whole history, with a context [slots] for encoders that read it."""
    item, type_, time_ms = (torch.from_numpy(a)[None] for a in _arrays(events))
    rows = np.zeros(model.config.n_slots, np.int64) if context is None else context
    length = torch.tensor([len(events)])
    query = None if events.query is None else torch.from_numpy(events.query)[None]
    session = None if events.session is None else torch.from_numpy(events.session)[None]
    read = torch.from_numpy(rows)[None]
    return model.eval().encode(item, type_, time_ms, length, context=read, query=query, session=session)[0]


def _explain(
    result: GateResult, engine: Engine, model: GPT4Rec, events: EventArrays, context: IntArray, hidden: torch.Tensor
) -> None:
    """Compares the explainer's shares and hidden state over the whole history with torch's."""
    if not len(events) or not engine.explains:
        return
    if not engine.artifact.streaming:
        _explain_whole(result, engine, model, events, context, hidden)
        return
    got = engine.explain(events, from_start=True)
    whole = engine.artifact.vocabulary.with_start(events)
    result.hidden = max(result.hidden, float(np.abs(got.h - hidden.numpy()).max()))
    if got.method == "attention_rollout":
        want = attention_rollout(model, *(torch.from_numpy(a) for a in _arrays(whole))).numpy()
        result.attention = max(result.attention, float(np.abs(np.append(got.start, got.weight) - want).max()))
    elif got.memory is not None:
        read = {name: array.numpy() for name, array in memory_read(model, whole).items()}
        _compare_read(result, got.memory, read)


def _compare_read(result: GateResult, got: MemoryRead, want: Mapping[str, FloatArray]) -> None:
    """Compares what was read from memory, a gradient beside which is not compared."""
    horizons = None if got.horizons is None else np.array([*got.horizons.values()])
    for name, share in (("events", got.events), ("slots", got.slots), ("horizons", horizons)):
        if share is not None:
            result.attention = max(result.attention, float(np.abs(share - want[name][-len(share) :]).max()))


def _explain_whole(
    result: GateResult, engine: Engine, model: GPT4Rec, events: EventArrays, context: IntArray, hidden: torch.Tensor
) -> None:
    """Compares the hidden state of an explainer without a state, and its attention where it shows that.

    A gradient by differences is not compared: beside a kink of the network it differs from torch's by right.
    """
    kept, whole = _kept(engine, events)
    got = engine.explain(kept, from_start=whole, context=context)
    result.hidden = max(result.hidden, float(np.abs(got.h - hidden.numpy()).max()))
    if got.method != "gradient":
        read = additive_attention if got.method == "attention" else history_rollout
        want = read(model, _seen(model, engine.artifact.vocabulary, events)).numpy()
        shares = np.append(got.start, got.weight)[-len(want) :]
        result.attention = max(result.attention, float(np.abs(shares - want).max()))


def _streamed(engine: Engine, events: EventArrays, context: IntArray, *, from_start: bool) -> EncoderState:
    half = len(events) // 2
    if half == 0 or not engine.artifact.streaming:
        return result_of(engine.encode([EncodeJob(events=events, from_start=from_start, context=context)])[0])
    first = events.at(slice(0, half))
    state = result_of(engine.encode([EncodeJob(events=first, from_start=from_start)])[0])
    return result_of(engine.encode([EncodeJob(state=state, events=events.after(half), from_start=False)])[0])


def _compare(result: GateResult, where: str, got: DecodedList, want: Sequence[ScoredItem]) -> float:
    """Compares the log-probabilities of items on both lists and, for float32, the order up to ties.

    Returns the overlap.
    """
    expected = {one.item: one for one in want}
    items = got.items.tolist()
    shared = [(index, item) for index, item in enumerate(items) if item in expected]
    for index, item in shared:
        difference = abs(float(got.log_probs[index]) - expected[item].log_prob)
        result.log_prob = max(result.log_prob, difference)
    if result.dtype == "float32":
        _same_order(result, where, items, got, want)
    return len(shared) / max(len(want), 1)


def _judge_law(result: GateResult, got: DecodedList, decoding: Decoding) -> set[int] | None:
    """Compares the log-propensities of a sampled list with those of its own candidates.

    Returns:
        The nucleus that they belong to, where rounding may have moved its end; None if they are no nucleus's.
    """
    if not decoding.sampled:
        return None
    if got.draw is None or got.draw.log_propensities is None:
        result.log_propensity = math.inf
        return None
    inside, off_by = nucleus_edges.of_draw(got.draw, got.items.tolist(), decoding)
    result.log_propensity = max(result.log_propensity, off_by)
    return inside if off_by <= TOLERANCE[result.dtype] else None


def _same_order(result: GateResult, where: str, items: list[int], got: DecodedList, want: Sequence[ScoredItem]) -> None:
    if len(items) != len(want):
        result.fail(f"{where}: {len(items)} items instead of {len(want)}")
        return
    for rank, (item, one) in enumerate(zip(items, want, strict=True), start=1):
        tied = abs(float(got.scores[rank - 1]) - one.score) <= TOLERANCE["float32"]
        if item != one.item and not tied:
            result.fail(f"{where}, rank {rank}: item {item} ({got.scores[rank - 1]:.5f}) instead of {one}")
            return


def _judge(result: GateResult) -> None:
    """Compares the figures with their limits, and puts the verdicts before the single differences."""
    limit, least = TOLERANCE[result.dtype], OVERLAP_AT_10[result.dtype]
    verdicts = []
    if not result.log_prob <= limit:
        verdicts.append(f"log-probabilities differ by up to {result.log_prob:.2e}, the tolerance is {limit:.0e}")
    if not result.log_propensity <= limit:
        verdicts.append(
            f"log-propensities differ by up to {result.log_propensity:.2e} from the law of the draw, the tolerance is "
            f"{limit:.0e}"
        )
    if not result.hidden <= result.hidden_tolerance:
        verdicts.append(
            f"hidden states differ by up to {result.hidden:.2e}, the tolerance is {result.hidden_tolerance:.0e}"
        )
    if not result.attention <= result.hidden_tolerance:
        verdicts.append(
            f"attention shares differ by up to {result.attention:.2e}, the tolerance is {result.hidden_tolerance:.0e}"
        )
    if result.overlap_at_10 < least and result.dtype != "float32":
        verdicts.append(f"only {result.overlap_at_10:.2%} of the top 10 agree, at least {least:.0%} must")
    if result.ndcg_at_10 is not None and result.ndcg_at_10_float32 is not None:
        change = result.ndcg_at_10 - result.ndcg_at_10_float32
        if not abs(change) <= result.ndcg_allowed:
            verdicts.append(
                f"NDCG@10 on validation is {result.ndcg_at_10:.4f} and {result.ndcg_at_10_float32:.4f} through the "
                f"float32 graphs ({change / max(result.ndcg_at_10_float32, 1e-9):+.1%}); a difference of "
                f"{result.ndcg_allowed:.4f} is allowed"
            )
    result.failures = verdicts + result.failures


__all__ = ["GateResult", "Probe", "Quality", "check", "full_encode"]
