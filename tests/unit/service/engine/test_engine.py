"""The engine's runs: bindings, padding, threads, masks and closed nodes give the answers of plain single runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import artifact_writer
from model.reference import closed_nodes as reference
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.artifact.graphs import level_tables
from service.artifact.graphs.decoder_interface import ON_REQUEST, ON_REQUEST_SAMPLED
from service.artifact.trie import Trie
from service.common.errors import FilterNotReady
from service.engine.decode import device_tables
from service.engine.decode.closed_nodes import closed_nodes
from service.engine.decode.filters import FilterTable
from service.engine.decode.run_feeds import exclusion_bucket
from service.engine.decoding import STRATEGIES, Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.interface import Stage
from service.engine.jobs import EVERYTHING, DecodedList, DecodeJob, EncodeJob, ListRequest
from service.engine.onnx_session import GraphSession
from service.engine.placement import Placement
from service.signals.item_values import ItemValues
from tests.support.artifacts import random_parts, write_artifact
from tests.support.byte_mask_decoder import write_byte_mask_decoder
from tests.support.engine_jobs import rank_by, requesting
from tests.support.networks import random_catalogue, random_codes, random_network

N_ITEMS = 60
FILTERS: tuple[dict[str, list[str]], ...] = ({}, {"category": ["a"]}, {"category": ["b", "c"]}, {"brand": ["x"]})
CHECKED = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_network(seed=4, n_items=N_ITEMS, sizes=(5, 4, 6))
    return write_artifact(tmp_path_factory.mktemp("artifact"), random_parts(model))


@pytest.fixture(scope="module")
def engine(artifact: Path) -> Engine:
    return with_filters(Engine.open(artifact, device="cpu", threads=1))


def with_filters(engine: Engine) -> Engine:
    """Filters are numbered as they come: the same number everywhere."""
    assert [engine.filter_id(filters) for filters in FILTERS] == [0, 2, 3, 4]
    return engine


def encode_job(rng: np.random.Generator, state: EncoderState | None = None) -> EncodeJob:
    n = int(rng.integers(0, 20))
    time_ms = 1_600_000_000_000 + np.cumsum(rng.integers(0, 10**7, n))
    if state is not None and state.n_valid:
        time_ms += state.last_ms - 1_600_000_000_000
    events = EventArrays(rng.integers(0, N_ITEMS, n), rng.integers(0, 6, n), time_ms)
    return EncodeJob(state=state, events=events, from_start=state is None)


def decode_job(rng: np.random.Generator, engine: Engine, h: Any) -> DecodeJob:
    request = ListRequest(
        context=rng.integers(0, 7, 3),
        gap_ms=int(rng.choice([GAP_UNKNOWN, 0, 10**7])),
        decoding=Decoding(STRATEGIES[rng.integers(len(STRATEGIES))], int(rng.integers(1, 6)), 0.8, 1.2),
        k=int(rng.integers(1, 25)),
        filter_id=engine.filter_id(FILTERS[rng.integers(len(FILTERS))]),
        excluded=rng.integers(-1, N_ITEMS + 3, int(rng.integers(0, 40))),
        seed=int(rng.integers(0, 2**62)),
        signals=random_signals(rng),
    )
    return DecodeJob(h=h, request=request)


def random_signals(rng: np.random.Generator) -> ItemValues:
    items = np.flatnonzero(rng.random(N_ITEMS) < rng.choice([0, 0.3, 0.9]))
    return ItemValues(items, rng.normal(0, 2, len(items)).astype(np.float32))


def list_job(h: Any, decoding: Decoding, excluded: Any) -> DecodeJob:
    context = np.zeros(3, np.int64)
    request = ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=10, excluded=excluded, seed=7)
    return DecodeJob(h=h, request=request)


def decode_jobs(engine: Engine, seed: int, n: int) -> list[DecodeJob]:
    rng = np.random.default_rng(seed)
    states = states_of(engine.encode([encode_job(rng) for _ in range(n)]))
    return [decode_job(rng, engine, state.h) for state in states]


def states_of(results: Sequence[EncoderState | Exception]) -> list[EncoderState]:
    assert not [result for result in results if isinstance(result, Exception)]
    return [result for result in results if isinstance(result, EncoderState)]


def assert_same_lists(found: Sequence[DecodedList | Exception], expected: Sequence[DecodedList | Exception]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, DecodedList), one
        assert isinstance(other, DecodedList), other
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


def assert_same_states(found: Sequence[EncoderState], expected: Sequence[EncoderState]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.n_valid == other.n_valid
        times, other_times = one.arrays["time_ms"], other.arrays["time_ms"]
        valid = slice(len(times) - one.n_valid, None)
        np.testing.assert_array_equal(times[valid], other_times[valid])
        np.testing.assert_allclose(one.h, other.h, atol=1e-5)
        rows, other_rows = (state.arrays["kv"][:, :, valid].astype(np.float32) for state in (one, other))
        np.testing.assert_allclose(rows, other_rows, atol=1e-2)


def on_buffers(_: object, __: object = None, **___: object) -> Placement:
    """Padded, with inputs written into buffers that stay, as for CUDA graphs; the CPU provider replays nothing."""
    return Placement("cpu", 1, pad=True, capture=True)


@pytest.fixture(params=["padded", "padded, on buffers"])
def other(request: pytest.FixtureRequest, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    if request.param == "padded, on buffers":
        monkeypatch.setattr(Placement, "choose", on_buffers)
    engine = Engine.open(artifact, device="cpu", threads=1, pad=True)
    assert (engine.placement.pad, engine.placement.capture) == (True, "buffers" in request.param)
    return with_filters(engine)


@pytest.mark.parametrize("n", [1, 3, 8, 11])
def test_padding_changes_no_list(engine: Engine, other: Engine, n: int) -> None:
    for seed in range(4):
        jobs = decode_jobs(engine, seed, n)
        assert_same_lists(other.decode(jobs), engine.decode(jobs))


@pytest.mark.parametrize("n", [1, 3, 6])
def test_padding_changes_no_state(engine: Engine, other: Engine, n: int) -> None:
    rng = np.random.default_rng(n)
    first = [encode_job(rng) for _ in range(n)]
    bases = states_of(engine.encode(first))
    assert_same_states(states_of(other.encode(first)), bases)
    rest = [encode_job(rng, state) for state in bases]
    assert_same_states(states_of(other.encode(rest)), states_of(engine.encode(rest)))


def test_every_padded_size_is_warmed_up(artifact: Path) -> None:
    engine = Engine.open(artifact, device="cpu", threads=1, pad=True)
    runs = Runs()
    engine.observe(runs)
    engine.warm_up()
    assert runs.seen == {(stage, rows) for stage in ("encode", "decode") for rows in (1, 2, 4, 8, 16, 32, 64, 128)}


def test_named_items_are_ranked_alike_where_shapes_are_padded(artifact: Path, engine: Engine) -> None:
    padded = Engine.open(artifact, device="cpu", threads=1, pad=True)
    changes: dict[str, Any] = {"decoding": Decoding("greedy"), "k": 30, "filter_id": EVERYTHING}
    jobs = [
        replace(job, request=replace(job.request, **changes, ranked=np.arange(n, 30)))
        for n, job in enumerate(decode_jobs(engine, 0, 3))
    ]
    found = engine.decode(jobs)
    assert_same_lists(padded.decode(jobs), found)
    assert all(isinstance(one, DecodedList) and len(one.items) > 5 for one in found)


class Runs:
    """The sizes that each stage ran at."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def ran(self, stage: Stage, rows: int, seconds: float) -> None:  # noqa: ARG002
        self.seen.add((stage, rows))


def test_encoding_and_decoding_at_the_same_time_give_what_they_give_alone(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    histories = [[encode_job(rng) for _ in range(1 + n % 5)] for n in range(40)]
    lists = [decode_jobs(engine, seed, 1 + seed % 6) for seed in range(40)]
    states_alone = [states_of(engine.encode(jobs)) for jobs in histories]
    lists_alone = [engine.decode(jobs) for jobs in lists]
    with ThreadPoolExecutor(4) as pool:
        encoding = pool.map(engine.encode, histories)
        decoding = [pool.map(engine.decode, lists) for _ in range(3)]
        for found, expected in zip(encoding, states_alone, strict=True):
            assert_same_states(states_of(found), expected)
        for results in decoding:
            for found_lists, expected_lists in zip(results, lists_alone, strict=True):
                assert_same_lists(found_lists, expected_lists)


def test_a_bound_run_gives_what_a_plain_run_gives(engine: Engine, artifact: Path) -> None:
    asked: list[tuple[bool, dict[str, Any], Sequence[Any], dict[str, Any]]] = []
    run = engine._decoder._run

    def spy(sampled: bool, feeds: Any, fixed: Any, *rest: Any) -> dict[str, Any]:
        out = run(sampled, feeds, fixed, *rest)
        asked.append((sampled, dict(feeds), fixed, out))
        return out

    engine._decoder._run = spy
    try:
        for seed in range(6):
            engine.decode(decode_jobs(engine, seed, 3))
    finally:
        engine._decoder._run = run
    plain = {
        sampled: ort.InferenceSession(str(artifact / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for sampled, name in ((False, "decoder"), (True, "sampler"))
    }
    assert {sampled for sampled, *_ in asked} == {False, True}
    for sampled, feeds, fixed, out in asked:
        values = {name: value for group in (*fixed, feeds) for name, value in group.items()}
        arrays = {name: v.numpy() if isinstance(v, ort.OrtValue) else v for name, v in values.items()}
        wanted = {value.name for value in plain[sampled].get_inputs()}
        names = [value.name for value in plain[sampled].get_outputs() if value.name in out]
        assert not (ON_REQUEST_SAMPLED if sampled else ON_REQUEST) & set(names)
        expected = plain[sampled].run(names, {name: arrays[name] for name in wanted})
        for name, array in zip(names, expected, strict=True):
            np.testing.assert_array_equal(out[name], array)


def test_runs_of_one_size_share_a_binding_whatever_they_exclude(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[Any, ...]] = []
    run = GraphSession.run

    def watched(graph: GraphSession, *given: Any) -> Any:
        runs.append(given)  # kept, so that no object takes the identity of one of an earlier run
        return run(graph, *given)

    h = decode_jobs(engine, 3, 1)[0].h
    monkeypatch.setattr(GraphSession, "run", watched)
    for excluded in range(4):
        engine.decode([list_job(h, Decoding("beam"), np.arange(excluded))])
    assert len({shape for _, _, shape, _ in runs}) == 1
    assert all(one is other for _, fixed, *_ in runs for one, other in zip(fixed, runs[0][1], strict=True)), (
        "values that stay are bound once"
    )


def test_query_and_offset_score_an_item_in_the_units_of_the_list(engine: Engine) -> None:
    """By the dense score alone, q · e + offset is the score that the list has for its own items."""
    outputs: list[dict[str, Any]] = []
    run = engine._decoder._run
    engine._decoder._run = lambda *args: outputs.append(run(*args)) or outputs[-1]  # type: ignore[func-returns-value]
    rank_by(engine, 0.0, 1.0)
    try:
        h = np.random.default_rng(1).normal(size=32).astype(np.float32)
        for strategy in STRATEGIES:
            job = list_job(h, Decoding(strategy), np.arange(5))
            listed = engine.decode([job])[0]
            assert isinstance(listed, DecodedList)
            out = outputs[-1]
            vectors = engine.artifact.item_table[listed.items]
            scores = vectors @ out["query"][0] + out["offset"].ravel()[0]
            np.testing.assert_allclose(listed.scores, scores, atol=1e-4)
    finally:
        engine._decoder._run = run
        rank_by(engine, 0.5, 0.5)


@pytest.mark.parametrize("k", [3, 10])
def test_a_beam_as_wide_as_that_of_a_plain_list_ranks_four_items_for_each_place_for_rules(
    engine: Engine, k: int
) -> None:
    h = np.random.default_rng(3).normal(size=32).astype(np.float32)
    job = requesting(list_job(h, Decoding("greedy"), np.arange(5)), k=k)
    plain, longer = engine.decode([job, requesting(job, pool=4 * k)])
    assert isinstance(plain, DecodedList)
    assert isinstance(longer, DecodedList)
    assert len(plain.items) == k
    assert len(longer.items) == 4 * k == len(set(longer.items.tolist()))
    assert (np.diff(longer.scores) <= 0).all()


def test_a_repeated_list_is_the_first_one_again_and_knows_what_has_changed(engine: Engine) -> None:
    h = np.random.default_rng(2).normal(size=32).astype(np.float32)
    for strategy in STRATEGIES:
        decoding, excluded = Decoding(strategy), np.arange(20)
        job = list_job(h, decoding, excluded)
        first = engine.decode([job])
        assert_same_lists(engine.decode([job]), first)
        assert_same_lists(engine.decode([job, job]), [first[0], first[0]])
        assert isinstance(first[0], DecodedList)
        more = engine.decode([requesting(job, excluded=np.append(excluded, first[0].items[0]))])[0]
        filtered = engine.decode([requesting(job, filter_id=3)])[0]
        assert isinstance(more, DecodedList)
        assert isinstance(filtered, DecodedList)
        assert first[0].items[0] not in more.items
        for item in filtered.items.tolist():
            assert set(engine.artifact.catalogue.items[item].facet("category")) & {"b", "c"}


def test_a_mask_is_written_to_its_own_place_and_nothing_else_moves(engine: Engine) -> None:
    fresh = engine._tables.renewed(engine.artifact, None)
    before = dict(fresh.arena.values)
    others = {name: value.numpy().copy() for name, value in before.items()}
    mask = fresh.filters.build({"category": ["a"], "brand": ["y"]})
    assert all(fresh.arena.values[name] is value for name, value in before.items())
    root = fresh.arena.values["node_ok_0"].numpy()
    np.testing.assert_array_equal(root[mask.place], mask.counts[0] > 0)
    places = len(root)
    for name, value in before.items():
        changed = (value.numpy() != others[name]).reshape(places, -1).any(axis=1)
        assert set(np.flatnonzero(changed)) <= {mask.place}


@pytest.mark.parametrize("rows_max", [2**18, 0], ids=["by rows", "in CSR form"])
def test_a_graph_of_before_with_a_byte_for_each_node_makes_the_same_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_max: int
) -> None:
    monkeypatch.setattr(level_tables, "_ROWS_MAX", rows_max)
    monkeypatch.setattr(level_tables, "_NODES_MAX", 0)
    parts = random_parts(random_network(seed=4, n_items=N_ITEMS, sizes=(5, 4, 6)))
    today = with_filters(Engine.open(write_artifact(tmp_path / "today", parts), device="cpu", threads=1))
    monkeypatch.setattr(artifact_writer, "write_decoder", write_byte_mask_decoder)
    before = with_filters(Engine.open(write_artifact(tmp_path / "before", parts), device="cpu", threads=1))
    assert (today._tables.traits.packed, before._tables.traits.packed) == (True, False)
    rng = np.random.default_rng(0)
    h = rng.normal(size=(12, 32)).astype(np.float32)
    jobs = [list_job(one, Decoding("beam"), rng.integers(0, N_ITEMS, 20)) for one in h]
    jobs = [requesting(job, filter_id=[0, 2, 3, 4][number % 4]) for number, job in enumerate(jobs)]
    assert_same_lists(before.decode(jobs), today.decode(jobs))


def test_lists_under_more_filters_than_there_are_places_are_those_of_an_engine_with_room(artifact: Path) -> None:
    """Every mask is dropped and built again many times; a list is of its filter, or its job says that it is gone."""
    roomy, tight = (
        Engine.open(artifact, device="cpu", threads=1),
        Engine.open(artifact, device="cpu", threads=1, filter_bytes_max=1),
    )
    rng = np.random.default_rng(3)
    wanted = [{"category": [a], "brand": [b]} for a in "abc" for b in "xyz"]
    dropped = tight.filter_id(wanted[0])
    for _ in range(20):
        filters = wanted[rng.integers(len(wanted))]
        job = list_job(rng.normal(size=32).astype(np.float32), Decoding("beam"), rng.integers(0, N_ITEMS, 5))
        expected = roomy.decode([requesting(job, filter_id=roomy.filter_id(filters))])
        assert_same_lists(tight.decode([requesting(job, filter_id=tight.filter_id(filters))]), expected)
        assert tight.filters.usage.held == 1
    ids = [dropped, 0]
    gone, everything = tight.decode([requesting(job, filter_id=number) for number in ids])
    assert isinstance(gone, FilterNotReady)
    assert_same_lists([everything], roomy.decode([requesting(job, filter_id=0)]))


def test_what_callers_exclude_is_kept_within_its_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_tables, "EXCLUSION_BYTES_MAX", 20_000)
    tables = engine._tables.renewed(engine.artifact, None)
    for n in range(50):
        inputs = tables.exclusions((0, bytes([n])), lambda n=n: {"closed": np.full(100, n)})  # type: ignore[misc]
        assert inputs["closed"][0] == n
    assert 0 < len(tables._exclusions) * 800 <= tables._exclusions.nbytes <= 20_000


@CHECKED
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 5), levels=st.integers(1, 4))
def test_closed_nodes_of_a_batch_are_those_of_its_rows_but_for_what_no_beam_reaches(
    seed: int, rows: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = [60] if levels == 1 else [4] * levels if levels > 2 else [9, 9]
    trie = Trie.build(random_codes(rng, 50, sizes))
    filters = FilterTable(trie, random_catalogue(rng, 50))
    masks = [filters.build(FILTERS[rng.integers(len(FILTERS))]) for _ in range(rows)]
    excluded = [rng.integers(-2, 55, rng.integers(0, 60)) for _ in range(rows)]
    found = closed_nodes(trie, masks, excluded)
    for row, (mask, items) in enumerate(zip(masks, excluded, strict=True)):
        all_closed = [set(nodes.tolist()) for nodes in reference.closed_nodes(trie, mask.counts, items)]
        for level, nodes in enumerate(found):
            parent, slot = nodes.padded(rows, max(1, nodes.most(rows)))
            real = parent[row, 0] >= 0
            first = trie.first_child[level][parent[row, 0][real]]
            expected = {
                node
                for node in all_closed[level]
                if level == 0 or int(trie.parent[level][node]) not in all_closed[level - 1]
            }
            assert sorted((first + slot[row, 0][real]).tolist()) == sorted(expected)


def test_a_failed_run_leaves_nothing_bound(artifact: Path) -> None:
    session = GraphSession(artifact / "encoder.onnx", Placement("cpu", 1, pad=False))
    feeds = {name: np.zeros((1, 1, 1, 1, 1), np.float64) for name in session.inputs}
    with pytest.raises(Exception, match="did not run"):
        session.run(feeds)
    with pytest.raises(Exception, match="did not run"):
        session.run({})


@pytest.mark.parametrize(
    ("exclusions", "padded"), [(1, 16), (16, 16), (17, 256), (1024, 1024), (1025, 2048), (5000, 5120)]
)
def test_any_number_of_exclusions_is_padded_to_one_of_few_sizes(exclusions: int, padded: int) -> None:
    assert exclusion_bucket(exclusions) == padded
