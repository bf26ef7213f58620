"""The decoder graph through the engine, against the slow reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from export.graphs.graph_writer import GraphDtype
from model.network.gpt4rec import GPT4Rec
from model.reference.cells import ReferenceCells
from model.reference.decoder import ReferenceDecoder, Scoring, normalise, nucleus, sampling_log_probs
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS, EventArrays
from service.artifact.graphs import level_tables
from service.artifact.graphs.noise import gumbel, id_hashes, uniform
from service.artifact.items.columns import Texts
from service.common.errors import ModelError
from service.engine.decoding import MAX_WIDTH, STRATEGIES, WIDTH_BUCKETS, Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob, Job, JobResult, ListRequest
from service.signals.item_values import NO_VALUES, ItemValues
from tests.support.artifacts import random_parts, with_cells, write_artifact
from tests.support.engine_jobs import requesting
from tests.support.networks import random_network

NOTHING = np.zeros(0, np.int64)
# Weights of the path and of the dense score, by group of users; the second has signals of items too.
WEIGHTS = [(0.5, 0.5), (0.3, 1.4)]
SHAPES: dict[int, Sequence[int]] = {1: (64,), 2: (7, 9), 3: (5, 4, 6), 4: (3, 4, 2, 5)}

CHECKED = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Pair:
    """An engine and the network it was exported from. The second group of users has a bias for each item."""

    def __init__(self, model: GPT4Rec, folder: Path, *, dense: bool = True, rows: int = 0) -> None:
        """`rows`: the most items of the best cells that are read; 0: no cells."""
        self.model = model
        parts = replace(random_parts(model), dense=dense)
        parts = with_cells(parts, rows) if rows else parts
        self.engine = Engine.open(write_artifact(folder, parts), device="cpu", threads=1)
        artifact = self.engine.artifact
        hashes = id_hashes(artifact.catalogue.columns.ids)
        cells = ReferenceCells(artifact.cells, artifact.trie) if artifact.cells else None
        self.reference = ReferenceDecoder(model, hashes, dense=dense, cells=cells)
        self.n_items = n = model.config.n_items
        self.bias = np.stack([np.zeros(n), np.random.default_rng(1).normal(size=n)]).astype(np.float32)
        self.engine.set_weights(WEIGHTS, self.bias)

    def job(self, decoding: Decoding, *, k: int = 10, seed: int = 0, history: int = 3, **changes: object) -> Job:
        rng = np.random.default_rng([seed, history])
        events = EventArrays(
            item=rng.integers(0, self.n_items, history),
            type=np.full(history, 2),
            time_ms=np.cumsum(rng.integers(0, 10**7, history)) + 1_600_000_000_000,
        )
        context = np.zeros(self.model.config.n_slots, np.int64)
        request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=k, seed=seed)
        return requesting(Job(encode=EncodeJob(events=events, from_start=True), request=request), **changes)

    def run(self, *jobs: Job) -> list[JobResult]:
        results = self.engine.run(jobs)
        for result in results:
            assert isinstance(result, JobResult), result
        return [result for result in results if isinstance(result, JobResult)]

    def encoded(self, job: Job) -> Job:
        """The same job with its history already in the state."""
        state = self.engine.encode([job.encode])[0]
        assert isinstance(state, EncoderState), state
        return replace(job, encode=EncodeJob(state=state, events=NO_EVENTS, from_start=False))

    def query(self, ranking: JobResult, job: Job) -> torch.Tensor:
        """q in torch, from the engine's own state."""
        with torch.no_grad():
            return self.model.query(
                torch.from_numpy(ranking.state.h),
                torch.from_numpy(job.request.context),
                torch.tensor(job.request.gap_ms),
            )

    def scoring(self, job: Job) -> Scoring:
        request = job.request
        path, dense = WEIGHTS[request.group] if request.weights is None else request.weights
        added = request.signals.unpacked()
        signals = dict(zip(added.items.tolist(), added.values.tolist(), strict=True))
        return Scoring(path, dense, signals, dict(enumerate(self.bias[request.group].tolist())))

    def filtered(self, job: Job) -> list[int]:
        counts = self.engine._tables.filters.mask(job.request.filter_id).counts
        return [int(item) for item in np.flatnonzero(counts[-1][self.engine.artifact.trie.item_leaf] > 0)]

    def allowed(self, job: Job) -> list[int]:
        mask = np.ones(self.n_items, bool)
        mask[job.request.excluded] = False
        return [item for item in self.filtered(job) if mask[item]]


@pytest.fixture(scope="module", params=[*map(str, SHAPES), "signals alone", "cells", "large"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """1 to 4 levels, and the best cells. "Large" looks level 1 up by token, 2 by rows of tokens, and 3 in CSR form."""
    folder = tmp_path_factory.mktemp("artifact")
    if request.param == "large":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(level_tables, "_ROWS_MAX", 6)
            patch.setattr(level_tables, "_NODES_MAX", 6)
            return Pair(random_network(seed=6, n_items=60, sizes=(2, 3, 20, 12)), folder)
    if request.param == "cells":
        return Pair(random_network(seed=3, n_items=40, sizes=SHAPES[3]), folder, dense=False, rows=7)
    levels = 3 if request.param == "signals alone" else int(request.param)
    model = random_network(seed=levels, n_items=40, sizes=SHAPES[levels])
    return Pair(model, folder, dense=request.param != "signals alone")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(random_network(seed=3), tmp_path_factory.mktemp("artifact"))


decodings = st.builds(
    Decoding,
    strategy=st.sampled_from(STRATEGIES),
    beam_width=st.integers(1, 8),
    top_p=st.floats(0.05, 1.0),
    temperature=st.floats(0.3, 3.0),
)
# A seed of random sparse signals, the weights of the network's parts, and the group of users.
rankings = st.tuples(
    st.none() | st.integers(0, 2**32),
    st.none() | st.tuples(st.floats(-0.5, 2, width=16), st.floats(0, 2, width=16)),
    st.integers(0, 1),
)
filters = st.sampled_from([{}, {"category": ["a"]}, {"category": ["a", "c"], "brand": ["x"]}, {"brand": ["y"]}])


def random_signals(seed: int | None, n_items: int) -> ItemValues:
    """Signals of some of the items, of either sign."""
    if seed is None:
        return NO_VALUES
    rng = np.random.default_rng(seed)
    items = np.sort(rng.choice(n_items, rng.integers(1, n_items), replace=False))
    return ItemValues(items, rng.normal(0, 3, len(items)).astype(np.float32))


def ranked_by(pair: Pair, ranking: tuple[int | None, tuple[float, float] | None, int]) -> dict[str, Any]:
    seed, weights, group = ranking
    return {"signals": random_signals(seed, pair.n_items), "weights": weights, "group": group}


def assert_same_list(pair: Pair, job: Job, ranking: JobResult) -> None:
    """Compares item by item; two items may trade places only if their scores tie."""
    allowed = pair.allowed(job)
    if not allowed:
        assert len(ranking.decoded.items) == 0
        return
    query = pair.query(ranking, job)
    request = job.request
    want = pair.reference.decode(
        query, request.decoding, request.k, request.run_width, allowed, request.seed, pair.scoring(job),
        filtered=pair.filtered(job),
    )  # fmt: skip
    assert len(ranking.decoded.items) == len(want)
    for rank, (item, score, one) in enumerate(zip(ranking.decoded.items, ranking.decoded.scores, want, strict=True)):
        tied = abs(score - one.score) < 1e-4
        assert item == one.item or tied, (rank, ranking.decoded.items, want)
        if item == one.item:
            assert abs(ranking.decoded.log_probs[rank] - one.log_prob) < 1e-4
            assert tied


@settings(CHECKED, max_examples=8)
@example(named=list(range(40)), seed=0, chosen={}, excluded=[], ranking=(None, None, 0))
@given(
    named=st.lists(st.integers(0, 45), max_size=46, unique=True),
    seed=st.integers(0, 2**32),
    chosen=filters,
    excluded=st.lists(st.integers(0, 39), max_size=20, unique=True),
    ranking=rankings,
)
def test_items_that_are_named_are_ranked_by_the_same_score_as_in_the_slow_reference(
    pair: Pair,
    named: list[int],
    seed: int,
    chosen: dict[str, list[str]],
    excluded: list[int],
    ranking: tuple[int | None, tuple[float, float] | None, int],
) -> None:
    filter_id = pair.engine.filter_id(chosen)
    asked: dict[str, Any] = {"filter_id": filter_id, "excluded": np.array(excluded, np.int64)}
    asked |= {**ranked_by(pair, ranking), "ranked": np.array(named, np.int64), "candidates": True}
    job = pair.job(Decoding("greedy"), k=max(1, len(named)), seed=seed, **asked)
    result = pair.run(job, pair.job(Decoding("beam"), k=3))[0]
    items = [item for item in pair.allowed(job) if item in named]
    want = pair.reference.ranked(pair.query(result, job), items, pair.scoring(job))
    got = dict(zip(result.decoded.items.tolist(), result.decoded.scores.tolist(), strict=True))
    assert got == pytest.approx({one.item: one.score for one in want}, abs=1e-4)
    assert list(got.values()) == sorted(got.values(), reverse=True)


@CHECKED
@given(
    decoding=decodings,
    k=st.integers(1, 30),
    seed=st.integers(0, 2**63 - 1),
    history=st.integers(0, 12),
    chosen=filters,
    excluded=st.lists(st.integers(0, 39), max_size=38, unique=True),
    ranking=rankings,
)
def test_onnx_equals_torch_and_the_slow_reference(
    pair: Pair,
    decoding: Decoding,
    k: int,
    seed: int,
    history: int,
    chosen: dict[str, list[str]],
    excluded: list[int],
    ranking: tuple[int | None, tuple[float, float] | None, int],
) -> None:
    job = pair.job(
        decoding,
        k=k,
        seed=seed,
        history=history,
        filter_id=pair.engine.filter_id(chosen),
        excluded=np.array(excluded, np.int64),
        **ranked_by(pair, ranking),
    )
    assert_same_list(pair, job, pair.run(job)[0])


EXTREMES = [
    Decoding("temperature", temperature=0.02),
    Decoding("temperature", temperature=50.0),
    Decoding("top_p", top_p=1.0),
    Decoding("top_p", top_p=0.001),
    Decoding("top_p", top_p=0.4, temperature=0.1),
]


@pytest.mark.parametrize("decoding", EXTREMES, ids=str)
def test_extreme_policies_equal_the_slow_reference_in_every_place(three: Pair, decoding: Decoding) -> None:
    """Without a nucleus no item is outside it, and items outside are ordered as exactly as those inside."""
    jobs = [three.job(decoding, k=35, seed=seed, history=seed % 7) for seed in range(25)]
    for job, ranking in zip(jobs, three.run(*jobs), strict=True):
        query = three.query(ranking, job)
        request, scoring = job.request, three.scoring(job)
        want = three.reference.decode(query, decoding, 35, request.run_width, range(40), request.seed, scoring)
        assert ranking.decoded.items.tolist() == [one.item for one in want]


@CHECKED
@given(
    decoding=decodings,
    k=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    chosen=filters,
    excluded=st.lists(st.integers(0, 39), max_size=40, unique=True),
    ranking=rankings,
)
def test_every_recommended_item_is_in_the_catalogue_and_allowed_and_not_excluded(
    pair: Pair,
    decoding: Decoding,
    k: int,
    seed: int,
    chosen: dict[str, list[str]],
    excluded: list[int],
    ranking: tuple[int | None, tuple[float, float] | None, int],
) -> None:
    filtered: dict[str, Any] = {"filter_id": pair.engine.filter_id(chosen), "excluded": np.array(excluded, np.int64)}
    job = pair.job(decoding, k=k, seed=seed, **filtered, **ranked_by(pair, ranking))
    items = pair.run(job)[0].decoded.items.tolist()
    assert set(items) <= set(pair.allowed(job))
    for item in items:
        for field, values in chosen.items():
            assert set(pair.engine.artifact.catalogue.items[item].facet(field)) & set(values)


@CHECKED
@given(
    decoding=decodings,
    k=st.integers(1, 40),
    chosen=filters,
    excluded=st.lists(st.integers(0, 39), max_size=40, unique=True),
    ranking=rankings,
)
def test_k_items_whenever_k_are_allowed_and_no_duplicates(
    pair: Pair,
    decoding: Decoding,
    k: int,
    chosen: dict[str, list[str]],
    excluded: list[int],
    ranking: tuple[int | None, tuple[float, float] | None, int],
) -> None:
    filtered: dict[str, Any] = {"filter_id": pair.engine.filter_id(chosen), "excluded": np.array(excluded, np.int64)}
    job = pair.job(decoding, k=k, **filtered, **ranked_by(pair, ranking))
    items = pair.run(job)[0].decoded.items.tolist()
    assert len(items) == min(k, len(pair.allowed(job)))
    assert len(set(items)) == len(items)


exclusions = st.lists(st.integers(-1, 45), max_size=30).map(lambda items: np.array(items, np.int64))


@CHECKED
@given(
    jobs=st.lists(
        st.tuples(decodings, st.integers(1, 20), st.integers(0, 99), filters, exclusions, rankings),
        min_size=2,
        max_size=6,
    )
)
def test_same_seed_same_answer_alone_and_in_any_batch(
    pair: Pair, jobs: list[tuple[Decoding, int, int, dict[str, list[str]], IntArray, Any]]
) -> None:
    """From the same state: encoding in another batch may round a stored key the other way."""
    rows = [
        requesting(
            pair.encoded(pair.job(decoding, k=k, seed=seed, history=seed % 5)),
            filter_id=pair.engine.filter_id(chosen),
            excluded=excluded,
            **ranked_by(pair, ranking),
        )
        for decoding, k, seed, chosen, excluded, ranking in jobs
    ]
    together = pair.run(*rows)
    for row, ranking in zip(rows, together, strict=True):
        alone = pair.run(row)[0]
        np.testing.assert_array_equal(alone.decoded.items, ranking.decoded.items)
        np.testing.assert_allclose(alone.decoded.scores, ranking.decoded.scores, atol=1e-5)


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_greedy_and_beam_do_not_depend_on_the_seed(three: Pair, strategy: str) -> None:
    decoding = Decoding(strategy)  # type: ignore[arg-type]
    base = three.job(decoding)
    lists = [three.run(requesting(base, seed=seed))[0].decoded.items.tolist() for seed in range(5)]
    assert all(items == lists[0] for items in lists)


@pytest.mark.parametrize("strategy", ["top_p", "temperature"])
def test_sampled_lists_change_with_the_seed(three: Pair, strategy: str) -> None:
    base = three.job(Decoding(strategy, temperature=1.2))  # type: ignore[arg-type]
    lists = {tuple(three.run(requesting(base, seed=seed))[0].decoded.items.tolist()) for seed in range(20)}
    assert len(lists) > 10


def test_beam_finds_lists_of_higher_mean_log_probability_than_greedy(tmp_path: Path) -> None:
    """Ranked by the path alone, so that both optimise the same thing."""
    model = random_network(seed=5, n_items=300, sizes=(12, 12, 12), scale=6.0)
    artifact = write_artifact(tmp_path, random_parts(model, weights={"path": 1.0}))
    engine = Engine.open(artifact, device="cpu", threads=1)
    means = {}
    maker = Pair.__new__(Pair)
    maker.model, maker.engine, maker.n_items = model, engine, 300
    for strategy in ("greedy", "beam"):
        decoding = Decoding(strategy)
        rankings = maker.run(*(maker.job(decoding, k=8, seed=seed) for seed in range(60)))
        means[strategy] = np.array([ranking.decoded.log_probs.mean() for ranking in rankings])
    assert (means["beam"] >= means["greedy"] - 1e-5).mean() > 0.95
    assert means["beam"].mean() > means["greedy"].mean() + 1e-3


def exact_probabilities(pair: Pair, job: Job, ranking: JobResult) -> dict[int, float]:
    """Probability of being drawn first, for the candidates inside the nucleus."""
    query, reference, request = pair.query(ranking, job), pair.reference, job.request
    scored = reference.candidates(
        query, request.decoding, request.k, request.run_width, pair.allowed(job), pair.scoring(job)
    )
    log_probs = sampling_log_probs(scored, request.decoding)
    inside = nucleus(log_probs, request.decoding.nucleus)
    return {item: math.exp(p) for item, p in normalise({item: log_probs[item] for item in inside}).items()}


@pytest.mark.parametrize("dense", [True, False], ids=["whole catalogue", "signals alone"])
def test_top_p_draws_from_the_nucleus_first_and_fills_up_outside_only_when_it_must(tmp_path: Path, dense: bool) -> None:
    three = Pair(random_network(seed=3), tmp_path, dense=dense)
    decoding = Decoding("top_p", top_p=0.5)
    for seed in range(30):
        job = three.job(decoding, k=20, seed=seed, history=seed % 6, signals=random_signals(seed, 40))
        ranking = three.run(job)[0]
        probabilities = exact_probabilities(three, job, ranking)
        inside = [item in probabilities for item in ranking.decoded.items.tolist()]
        drawn = sum(inside)
        assert inside == [True] * drawn + [False] * (20 - drawn)
        assert drawn == min(20, len(probabilities))


@pytest.mark.parametrize("dense", [True, False], ids=["whole catalogue", "signals alone"])
@pytest.mark.parametrize("decoding", [Decoding("temperature", temperature=1.2), Decoding("top_p", top_p=0.6)], ids=str)
def test_lists_are_drawn_from_no_more_candidates_than_the_reference_has(
    tmp_path: Path, decoding: Decoding, dense: bool
) -> None:
    """In a catalogue with more items than candidates, with and without a filter and signals."""
    pair = Pair(random_network(seed=4, n_items=400, sizes=(8, 8, 8)), tmp_path, dense=dense)
    number = pair.engine.filter_id({"brand": ["y"]})
    assert len(pair.allowed(pair.job(decoding, filter_id=number))) > MAX_WIDTH
    for seed in range(10):
        signals = random_signals(None if seed % 3 else seed, 400)
        filter_id = number if seed % 2 else 0
        job = pair.job(decoding, seed=seed, filter_id=filter_id, excluded=np.arange(seed), signals=signals)
        ranking = pair.run(job)[0]
        assert_same_list(pair, job, ranking)
        inside = exact_probabilities(pair, job, ranking)
        drawn = [item in inside for item in ranking.decoded.items.tolist()]
        assert drawn == sorted(drawn, reverse=True)


def test_temperature_spreads_the_first_pick(three: Pair) -> None:
    spread = []
    for temperature in (0.3, 1.0, 3.0):
        base = three.job(Decoding("temperature", temperature=temperature), k=1)
        rankings = three.run(*(requesting(base, seed=seed) for seed in range(400)))
        counts = Counter(int(ranking.decoded.items[0]) for ranking in rankings)
        spread.append(stats.entropy(list(counts.values())))
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("decoding", [Decoding("temperature", temperature=1.3), Decoding("top_p", top_p=0.8)], ids=str)
@pytest.mark.parametrize("dense", [True, False], ids=["whole catalogue", "signals alone"])
def test_sampling_frequencies_match_the_exact_probabilities_without_replacement(
    tmp_path: Path, decoding: Decoding, dense: bool
) -> None:
    """Chi-square over ordered pairs of the Plackett–Luce model: P(a, b) = p(a) · p(b) / (1 − p(a))."""
    pair = Pair(random_network(seed=11, n_items=7, sizes=(3, 3), scale=2.0), tmp_path, dense=dense)
    signals = ItemValues(np.array([1, 4]), np.array([1.5, -1.0], np.float32))
    base = pair.job(decoding, k=2, signals=signals, group=1)
    draws = 6000
    counts: Counter[tuple[int, ...]] = Counter()
    ready = pair.encoded(base)
    for at in range(0, draws, 500):
        rankings = pair.run(*(requesting(ready, seed=seed) for seed in range(at, at + 500)))
        counts.update(tuple(ranking.decoded.items.tolist()) for ranking in rankings)
    p = exact_probabilities(pair, ready, pair.run(ready)[0])
    assert sum(p.values()) == pytest.approx(1.0)
    exact = {(a, b): p[a] * p[b] / (1 - p[a]) for a, b in permutations(p, 2)}
    assert set(counts) <= set(exact)
    expected = np.array([draws * value for value in exact.values()])
    observed = np.array([counts[pick] for pick in exact])
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    observed = np.append(observed[common], observed[~common].sum())
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert stats.chi2.sf(statistic, len(expected) - 1) > 0.001


def test_noise_is_uniform_and_neighbouring_items_do_not_share_it() -> None:
    hashes = id_hashes(Texts.of([f"i{n}" for n in range(2000)]))
    samples = np.stack([uniform(hashes, seed) for seed in range(200)])
    assert stats.kstest(samples.ravel(), "uniform").pvalue > 0.001
    correlation = np.corrcoef(samples[:, :-1].ravel(), samples[:, 1:].ravel())[0, 1]
    assert abs(correlation) < 0.01
    across_seeds = np.corrcoef(samples[:-1].ravel(), samples[1:].ravel())[0, 1]
    assert abs(across_seeds) < 0.01
    assert len(np.unique(hashes)) == len(hashes)
    assert np.isfinite(gumbel(hashes, 2**63 - 1)).all()


@pytest.mark.parametrize("width", WIDTH_BUCKETS)
def test_a_wider_beam_never_loses_an_item_it_must_list(three: Pair, width: int) -> None:
    k = min(width, three.n_items)
    items = three.run(three.job(Decoding("greedy"), k=k, width=width))[0].decoded.items
    assert len(set(items.tolist())) == k


def test_a_list_longer_than_the_beam_is_refused_for_that_job_alone(three: Pair) -> None:
    good = three.job(Decoding("greedy"), k=8, width=8)
    bad = requesting(good, k=9)
    first, second, third = three.engine.run([good, bad, good])
    assert isinstance(second, Exception)
    assert isinstance(first, JobResult)
    assert isinstance(third, JobResult)


def test_a_network_that_is_not_finite_is_an_error_and_no_short_list(three: Pair) -> None:
    good = three.encoded(three.job(Decoding("beam")))
    state = good.encode.state
    assert state is not None
    bad = replace(good, encode=replace(good.encode, state=replace(state, h=state.h * np.float32(np.nan))))
    first, second, third = three.engine.run([good, bad, good])
    assert isinstance(second, ModelError)
    assert isinstance(first, JobResult)
    assert isinstance(third, JobResult)


@pytest.mark.parametrize(("dtype", "least"), [("float16", 0.99), ("int8", 0.97)])
def test_graphs_that_round_agree_within_their_tolerance(tmp_path: Path, dtype: GraphDtype, least: float) -> None:
    model = random_network(seed=3)
    rounding = Engine.open(write_artifact(tmp_path, random_parts(model), dtype=dtype), device="cpu", threads=1)
    pair = Pair(model, tmp_path / "single")
    shared = 0
    jobs = [
        pair.job(Decoding("beam"), seed=seed, signals=random_signals(seed if seed % 2 else None, 40))
        for seed in range(20)
    ]
    for job in jobs:
        rough, exact = rounding.run([job])[0], pair.run(job)[0]
        assert isinstance(rough, JobResult)
        shared += len(set(rough.decoded.items.tolist()) & set(exact.decoded.items.tolist()))
        assert rough.decoded.scores.dtype == np.float32
    assert shared >= least * 200
