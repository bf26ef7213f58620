"""Candidates by cell: lists are full and nearly exhaustive, whatever a filter leaves, and follow a catalogue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.parity_gate import Probe, check
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.artifact.manifest import ArtifactFileError
from service.catalogue.assembly import assemble, build
from service.catalogue.placing import Likeness
from service.catalogue.updates_file import parse
from service.common.errors import ArtifactError
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, ListRequest
from tests.support.artifacts import random_parts, with_cells, write_artifact
from tests.support.engine_jobs import rank_by, requesting
from tests.support.networks import random_network

N_ITEMS = 200
FILTERS: tuple[dict[str, list[str]], ...] = ({}, {"category": ["a"]}, {"category": ["b", "c"], "brand": ["x"]})


def written(folder: Path, rows: int) -> Path:
    model = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8))
    return write_artifact(folder, with_cells(random_parts(model), rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("artifact"), rows=N_ITEMS)


@pytest.fixture
def engine(folder: Path) -> Engine:
    engine = Engine.open(folder, device="cpu", threads=1)
    rank_by(engine, 0.0, 1.0)
    return engine


def job(engine: Engine, seed: int, **changes: object) -> DecodeJob:
    h = np.random.default_rng(seed).standard_normal(engine.artifact.network["d_model"]).astype(np.float32)
    request = ListRequest(context=np.zeros(3, np.int64), gap_ms=GAP_UNKNOWN, decoding=Decoding("beam"), k=10)
    return requesting(DecodeJob(h=h, request=request), **changes)


def listed(engine: Engine, *jobs: DecodeJob) -> list[DecodedList]:
    found = engine.decode(jobs)
    assert all(isinstance(one, DecodedList) for one in found), found
    return [one for one in found if isinstance(one, DecodedList)]


def exhaustive(engine: Engine, one: DecodeJob) -> list[int]:
    """The allowed items with the largest q · e, by a list that ranks every one of them by name."""
    everything = requesting(one, ranked=np.arange(N_ITEMS + 10))
    return [int(item) for item in listed(engine, everything)[0].items[: one.request.k]]


@pytest.mark.parametrize("chosen", FILTERS, ids=str)
def test_with_room_for_all_that_a_filter_leaves_a_list_is_the_exhaustive_one(
    engine: Engine, chosen: dict[str, list[str]]
) -> None:
    asked = [
        job(engine, seed, filter_id=engine.filter_id(chosen), excluded=np.arange(0, 9 * seed, 5)) for seed in range(12)
    ]
    for one, found in zip(asked, listed(engine, *asked), strict=True):
        assert found.items.tolist() == exhaustive(engine, one)


def test_with_less_room_most_of_the_list_is_found_and_it_is_full(tmp_path: Path) -> None:
    engine = Engine.open(written(tmp_path, rows=60), device="cpu", threads=1)
    rank_by(engine, 0.0, 1.0)
    asked = [job(engine, seed, filter_id=engine.filter_id(FILTERS[seed % 3]), k=8) for seed in range(30)]
    together, shared = listed(engine, *asked), 0
    for one, found in zip(asked, together, strict=True):
        assert len(set(found.items.tolist())) == 8
        assert listed(engine, one)[0].items.tolist() == found.items.tolist(), "alone as in a batch"
        shared += len({*found.items.tolist()} & {*exhaustive(engine, one)})
    assert shared > 0.8 * 240
    engine.set_joined_candidates(False)
    alone = [{*found.items.tolist()} for found in listed(engine, *asked)]
    assert sum(len({*one.items.tolist()} - other) for one, other in zip(together, alone, strict=True)) > 0


def test_stock_and_new_items_are_in_cells_as_soon_as_the_trie_has_them(folder: Path) -> None:
    exported = Artifact.open(folder)
    engine = Engine(exported, device="cpu", threads=1)
    rank_by(engine, 0.0, 1.0)
    asked = [job(engine, seed) for seed in range(10)]
    before = listed(engine, *asked)
    favourite, gone = int(before[0].items[0]), int(before[1].items[0])
    likeness = Likeness(exported)
    lines = b'{"item_id": "n1", "title": "N", "like": ["i%d"]}\n' % favourite
    updates = replace(parse(lines, exported.catalogue), out_of_stock={f"i{gone}"})
    built = build(exported, updates.new, likeness)
    engine.update(assemble(exported, built, updates, likeness))
    assert engine.artifact.cells is built.artifact.cells, "computed once, not with every change of stock"
    first = exported.catalogue.first_new
    for one, after in zip(asked, listed(engine, *asked), strict=True):
        assert gone not in after.items
        # The new item and what it is like tie, so that either may come first.
        worth = np.where(after.items == first, favourite, after.items)
        best = [favourite if item == first else item for item in exhaustive(engine, one)]
        assert {*worth.tolist()} == {*best}
    assert first in listed(engine, asked[0])[0].items


def test_the_gate_compares_with_cells_in_plain_loops(folder: Path) -> None:
    model, artifact = random_network(seed=6, n_items=N_ITEMS, sizes=(8, 8, 8)), Artifact.open(folder)
    empty = np.zeros(0, np.int64)
    assert check(model, artifact, [Probe(EventArrays(empty, empty, empty))], "float32").failures == []


def test_the_manifest_names_them_and_files_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    artifact = Artifact.open(folder)
    assert artifact.manifest["dense_candidates"] is False
    assert artifact.manifest["cell_candidates"] == {"level": 2, "rows": N_ITEMS}
    files = {name: entry for name, entry in artifact.manifest["files"].items() if name != "cells.npz"}
    with pytest.raises(ArtifactError, match=r"the graphs read cells\.npz, which is missing"):
        Engine(Artifact(artifact.folder, {**artifact.manifest, "files": files}), device="cpu", threads=1)
    other = write_artifact(tmp_path, with_cells(random_parts(random_network(n_items=30)), 5))
    (other / "cells.npz").write_bytes((folder / "cells.npz").read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["cells.npz"] = artifact.manifest["files"]["cells.npz"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactFileError, match="disagree on the number of items"):
        Artifact.open(other)
