"""Joined candidates beside the beam: which items join, which never do, and when there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.graphs.candidates import DENSE_ITEMS_MAX, dense_by_rule
from export.parity_gate import Probe, check
from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.catalogue.assembly import assemble, build
from service.catalogue.placing import Likeness
from service.catalogue.updates_file import parse
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from tests.support.artifacts import random_parts, write_artifact
from tests.support.engine_jobs import rank_by, requesting
from tests.support.networks import random_network

N_ITEMS = 200
GREEDY, BEAM = Decoding("greedy"), Decoding("beam")
# A temperature so low that drawing is the same as ranking.
COLD = Decoding("temperature", temperature=1e-6)
FILTERS: tuple[dict[str, list[str]], ...] = ({}, {"category": ["a"]}, {"category": ["b", "c"], "brand": ["x"]})
CHECKED = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8))
    return write_artifact(tmp_path_factory.mktemp("artifact"), random_parts(model))


@pytest.fixture
def engine(folder: Path) -> Engine:
    return Engine.open(folder, device="cpu", threads=1)


def job(engine: Engine, seed: int, **changes: Any) -> DecodeJob:
    h = np.random.default_rng(seed).standard_normal(engine.artifact.network["d_model"]).astype(np.float32)
    request = ListRequest(context=np.zeros(3, np.int64), gap_ms=GAP_UNKNOWN, decoding=GREEDY, k=10)
    return requesting(DecodeJob(h=h, request=request), **changes)


def listed(engine: Engine, *jobs: DecodeJob) -> list[DecodedList]:
    found = engine.decode(jobs)
    assert all(isinstance(one, DecodedList) for one in found), found
    return [one for one in found if isinstance(one, DecodedList)]


def query(engine: Engine, one: DecodeJob) -> Any:
    """q [d] as the decoder graph outputs it."""
    seen: dict[str, Any] = {}
    run = engine._decoder._run

    def watch(*args: Any) -> Any:
        seen.update(run(*args))
        return seen

    engine._decoder._run = watch
    listed(engine, one)
    engine._decoder._run = run
    return seen["query"][0]


def best(engine: Engine, one: DecodeJob, allowed: IntArray) -> list[int]:
    """The allowed items with the largest q · e, one after the other."""
    score = engine.artifact.item_table[allowed] @ query(engine, one)
    return [int(item) for item in allowed[np.argsort(-score, kind="stable")][: one.request.k]]


def allowed_items(engine: Engine, one: DecodeJob) -> IntArray:
    mask = engine._tables.filters.mask(one.request.filter_id)
    trie = engine.artifact.trie
    items = np.sort(trie.leaf_item[mask.counts[-1] > 0])
    return items[~np.isin(items, one.request.excluded)]


@CHECKED
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 40),
    chosen=st.sampled_from(FILTERS),
    excluded=st.lists(st.integers(-2, N_ITEMS + 5), max_size=60),
    decoding=st.sampled_from([GREEDY, BEAM, COLD]),
)
def test_ranked_by_the_dense_score_alone_a_list_is_the_exhaustive_one(
    engine: Engine, seed: int, k: int, chosen: dict[str, list[str]], excluded: list[int], decoding: Decoding
) -> None:
    rank_by(engine, 0.0, 1.0)
    out = np.array(excluded, np.int64)
    asked = job(engine, seed, k=k, filter_id=engine.filter_id(chosen), excluded=out, decoding=decoding)
    assert listed(engine, asked)[0].items.tolist() == best(engine, asked, allowed_items(engine, asked))


def test_the_beam_alone_misses_items_of_the_exhaustive_list(engine: Engine) -> None:
    rank_by(engine, 0.0, 1.0)
    asked = [job(engine, seed) for seed in range(30)]
    whole = [one.items.tolist() for one in listed(engine, *asked)]
    engine.set_joined_candidates(False)
    alone = [one.items.tolist() for one in listed(engine, *asked)]
    assert sum(a != w for a, w in zip(alone, whole, strict=True)) > 10
    engine.set_joined_candidates(True)
    assert [one.items.tolist() for one in listed(engine, *asked)] == whole


def test_switched_off_the_lists_are_those_of_a_graph_without_dense_candidates(engine: Engine, tmp_path: Path) -> None:
    model = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8))
    folder = write_artifact(tmp_path, replace(random_parts(model), dense=False))
    without = Engine.open(folder, device="cpu", threads=1)
    assert "item_ok" not in {one.name for one in onnx.load(folder / "decoder.onnx").graph.input}
    assert without.artifact.manifest["dense_candidates"] is False
    engine.set_joined_candidates(False)
    asked = [job(engine, seed, decoding=BEAM if seed % 2 else GREEDY) for seed in range(20)]
    for one, other in zip(listed(engine, *asked), listed(without, *asked), strict=True):
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_a_candidates_log_probability_is_its_paths_own(engine: Engine) -> None:
    """A beam over the whole catalogue finds the same items; their scores must not depend on how they were found."""
    rank_by(engine, 0.0, 1.0)
    narrow = listed(engine, *(job(engine, seed) for seed in range(10)))
    wide = listed(engine, *(job(engine, seed, k=128, width=128, decoding=BEAM) for seed in range(10)))
    compared = 0
    for one, other in zip(narrow, wide, strict=True):
        known = dict(zip(other.items.tolist(), other.log_probs.tolist(), strict=True))
        shared = [(known[item], value) for item, value in zip(one.items.tolist(), one.log_probs, strict=True)]
        for expected, value in shared:
            assert value == pytest.approx(expected, abs=1e-4)
        compared += len(shared)
    assert compared == 100


def test_stock_and_new_items_are_candidates_as_soon_as_the_trie_has_them(folder: Path) -> None:
    exported = Artifact.open(folder)
    engine = Engine(exported, device="cpu", threads=1)
    rank_by(engine, 0.0, 1.0)
    asked = [job(engine, seed) for seed in range(20)]
    before = listed(engine, *asked)
    favourite = int(before[0].items[0])
    likeness = Likeness(exported)
    lines = b'{"item_id": "n1", "title": "N", "like": ["i%d"]}\n' % favourite
    updates = replace(parse(lines, exported.catalogue), out_of_stock={f"i{before[1].items[0]}"})
    engine.update(assemble(exported, build(exported, updates.new, likeness), updates, likeness))
    first = exported.catalogue.first_new
    for one, after in zip(asked, listed(engine, *asked), strict=True):
        assert after.items.tolist() == best(engine, one, allowed_items(engine, one))
        assert int(before[1].items[0]) not in after.items
    assert first in listed(engine, asked[0])[0].items
    drawn = listed(engine, *(requesting(one, decoding=COLD) for one in asked))
    # The new item is worth what its favourite is, so their order is one of chance.
    alike = {first, favourite}
    for cold, other in zip(drawn, listed(engine, *asked), strict=True):
        assert set(cold.items.tolist()) == set(other.items.tolist())
        assert [i for i in cold.items.tolist() if i not in alike] == [i for i in other.items.tolist() if i not in alike]
    engine.set_joined_candidates(False)
    assert listed(engine, *asked)


def test_sampled_lists_have_items_that_the_beam_alone_misses(engine: Engine) -> None:
    asked = [job(engine, row, decoding=Decoding("temperature")) for row in range(30)]
    joined = [set(one.items.tolist()) for one in listed(engine, *asked)]
    engine.set_joined_candidates(False)
    beams = listed(engine, *(requesting(one, k=16, width=16, decoding=GREEDY) for one in asked))
    found = [set(one.items.tolist()) for one in beams]
    alone = [set(one.items.tolist()) for one in listed(engine, *asked)]
    assert all(one <= of for one, of in zip(alone, found, strict=True)), "drawn from the beam's 16"
    assert sum(not one <= of for one, of in zip(joined, found, strict=True)) > 20


def test_float16_graphs_list_the_same_candidates(folder: Path, tmp_path: Path) -> None:
    model = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8))
    half = Engine.open(write_artifact(tmp_path, random_parts(model), dtype="float16"), device="cpu", threads=1)
    exact = Engine.open(folder, device="cpu", threads=1)
    asked = [job(exact, seed) for seed in range(40)]
    pairs = zip(listed(half, *asked), listed(exact, *asked), strict=True)
    assert sum(len(set(a.items.tolist()) & set(b.items.tolist())) for a, b in pairs) >= 0.98 * 400


def test_the_rule_is_the_size_of_the_catalogue() -> None:
    assert dense_by_rule(1) and dense_by_rule(DENSE_ITEMS_MAX) and not dense_by_rule(DENSE_ITEMS_MAX + 1)


def test_the_manifest_says_whether_they_join(folder: Path) -> None:
    assert Artifact.open(folder).manifest["dense_candidates"] is True


def test_the_gate_refuses_lists_that_the_manifests_candidates_do_not_explain(folder: Path) -> None:
    """The beam alone does not find what the graph lists, and the gate says so."""
    model = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8))
    artifact = Artifact.open(folder)
    nothing = np.zeros(0, np.int64)
    probes = [Probe(EventArrays(nothing, nothing, nothing))]
    assert check(model, artifact, probes, "float32").failures == []
    without = replace(artifact, manifest={**artifact.manifest, "dense_candidates": False})
    assert check(model, without, probes, "float32").failures != []
