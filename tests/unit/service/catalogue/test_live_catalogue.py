"""The engine over a catalogue that changes: new items are listed, sold-out ones are not, requests are not disturbed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import orjson
import pytest

from service.artifact.array_types import FloatArray
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN
from service.catalogue.updates import CatalogueUpdates
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.signals.item_values import ItemValues
from tests.support.engine_jobs import rank_by

STRATEGIES = [Decoding("greedy"), Decoding("beam"), Decoding("top_p"), Decoding("temperature", temperature=1.2)]
NOTHING = np.zeros(0, np.int64)


class Live:
    """An engine whose catalogue follows a file."""

    def __init__(self, artifact: Path, file: Path) -> None:
        self.file = file
        self.engine = Engine(Artifact.open(artifact), device="cpu", threads=1)
        self.exported = self.engine.artifact
        self.updates = CatalogueUpdates(self.exported, file, self.engine.update)
        self.h = np.random.default_rng(0).standard_normal(self.exported.network["d_model"]).astype(np.float32)

    def write(self, *rows: dict[str, object]) -> None:
        self.file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        assert self.updates.poll()

    def list(self, k: int = 10, decoding: Decoding = STRATEGIES[1], **other: object) -> DecodedList:
        request = ListRequest(
            context=np.zeros(self.exported.network["n_slots"], np.int64),
            gap_ms=GAP_UNKNOWN,
            decoding=decoding,
            k=k,
            **{"seed": 1, "width": 64} | other,  # type: ignore[arg-type]
        )
        found = self.engine.decode([DecodeJob(h=self.h, request=request)])[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(scope="module")
def artifact(random_artifact: Path) -> Path:
    return random_artifact


@pytest.fixture
def live(artifact: Path, tmp_path: Path) -> Live:
    return Live(artifact, tmp_path / "updates.jsonl")


def new(item_id: str, like: str, **other: object) -> dict[str, object]:
    return {"item_id": item_id, "title": item_id.upper(), "like": [like], **other}


@pytest.mark.parametrize("decoding", STRATEGIES, ids=lambda d: d.strategy)
def test_k_items_whenever_k_are_allowed_new_ones_included(live: Live, decoding: Decoding) -> None:
    n, first = live.exported.trie.n_items, live.exported.catalogue.first_new
    live.write(new("n1", "i5"), new("n2", "i6", in_stock=False), new("n3", "i7"), {"item_id": "i3", "in_stock": False})
    for _ in range(2):  # waiting in the delta table, then in the trie
        listed = live.list(k=60, decoding=decoding)
        expected = (set(range(n)) - {3}) | {first, first + 2}
        assert sorted(listed.items.tolist()) == sorted(expected)
        assert np.isfinite(listed.scores).all()
        excluded = np.array(sorted(expected - {first, 7}), np.int64)
        assert sorted(live.list(k=60, decoding=decoding, excluded=excluded).items.tolist()) == [7, first]
        live.updates.rebuild()


def test_a_new_item_is_found_by_its_filter_and_by_no_other(live: Live) -> None:
    first = live.exported.catalogue.first_new
    live.write(new("n1", "i5", category=["a", "brand new"], brand="y"))
    for _ in range(2):
        for filters, there in (
            ({"category": ["brand new"]}, True),
            ({"category": ["a"], "brand": ["y"]}, True),
            ({"category": ["b"]}, False),
            ({"category": ["brand new"], "brand": ["x"]}, False),
        ):
            number = live.engine.filter_id(filters)
            assert (first in live.list(k=60, filter_id=number).items) is there, filters
        assert live.list(k=60, filter_id=live.engine.filter_id({"category": ["brand new"]})).items.tolist() == [first]
        live.updates.rebuild()


def test_a_new_item_scores_as_its_like_does_in_dense_terms(live: Live) -> None:
    """With the dense score alone as the ranking, a copy of an item stands where the item stands."""
    rank_by(live.engine, 0.0, 1.0)
    best = int(live.list(k=5).items[0])
    live.write(new("n1", live.exported.catalogue.item_id(best)))
    listed = live.list(k=60)
    at = dict(zip(listed.items.tolist(), listed.scores.tolist(), strict=True))
    assert at[live.exported.catalogue.first_new] == pytest.approx(at[best], abs=1e-4)
    assert set(listed.items[:2].tolist()) == {best, live.exported.catalogue.first_new}


@pytest.mark.parametrize("decoding", [STRATEGIES[1], Decoding("temperature", temperature=1e-6)], ids=str)
def test_a_new_item_takes_the_signals_of_its_stand_in(live: Live, decoding: Decoding) -> None:
    """Ranked without the path, a copy of an item has the item's score: while it waits, and in the trie."""
    n, first = live.exported.trie.n_items, live.exported.catalogue.first_new
    bias = np.random.default_rng(3).normal(size=(1, n)).astype(np.float32)
    live.engine.set_weights([(0.0, 1.5)], bias)
    worst, other = live.list(k=60).items[[-1, -2]].tolist()
    live.write(new("n1", live.exported.catalogue.item_id(worst)), new("n2", live.exported.catalogue.item_id(other)))
    values = ItemValues(np.array([worst, first]), np.full(2, 90, np.float32))
    for _ in range(2):
        listed = live.list(k=60, decoding=decoding, signals=values)
        at = dict(zip(listed.items.tolist(), listed.scores.tolist(), strict=True))
        assert set(listed.items[:2].tolist()) == {worst, first}
        assert at[first] == pytest.approx(at[worst], abs=1e-4)
        assert at[first + 1] == pytest.approx(at[other], abs=1e-4)
        live.updates.rebuild()


def test_a_new_item_that_becomes_like_another_takes_its_signals_before_the_next_build(live: Live) -> None:
    n, first = live.exported.trie.n_items, live.exported.catalogue.first_new
    bias = np.random.default_rng(3).normal(size=(1, n)).astype(np.float32)
    live.engine.set_weights([(0.0, 0.0)], bias)
    for like in (5, 7):
        live.write(new("n1", live.exported.catalogue.item_id(like)))
        for _ in range(2):
            listed = live.list(k=60)
            at = dict(zip(listed.items.tolist(), listed.scores.tolist(), strict=True))
            assert at[first] == pytest.approx(bias[0, like], abs=1e-5)
            live.updates.rebuild()


def test_out_of_stock_holds_for_filters_that_were_asked_for_before(live: Live) -> None:
    number = live.engine.filter_id({"brand": ["x"]})
    before = set(live.list(k=60, filter_id=number).items.tolist())
    gone = sorted(before)[:3]
    live.write(*({"item_id": live.exported.catalogue.item_id(item), "in_stock": False} for item in gone))
    assert live.engine.filter_id({"brand": ["x"]}) == number
    assert set(live.list(k=60, filter_id=number).items.tolist()) == before - set(gone)
    live.write({"item_id": live.exported.catalogue.item_id(gone[0]), "in_stock": True})
    assert set(live.list(k=60, filter_id=number).items.tolist()) == before


def test_events_of_a_new_item_are_unknown_before_the_rebuild_and_its_own_after(live: Live) -> None:
    live.write(new("n1", "i5"))

    def encode(item_id: str) -> FloatArray:
        events = live.engine.artifact.vocabulary.events([item_id], ["click"], [1])
        state = live.engine.encode([EncodeJob(events=events, from_start=True)])[0]
        assert not isinstance(state, Exception)
        return state.h

    unknown, like = encode("who?"), encode("i5")
    np.testing.assert_array_equal(encode("n1"), unknown)
    live.updates.rebuild()
    np.testing.assert_allclose(encode("n1"), like, atol=1e-5)
    np.testing.assert_array_equal(encode("who?"), unknown)


def test_requests_under_way_while_the_catalogue_changes_get_whole_lists(live: Live) -> None:
    stop, broken = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            for decoding in STRATEGIES:
                listed = live.list(k=10, decoding=decoding)
                ids = [live.engine.artifact.catalogue.item_id(item) for item in listed.items.tolist()]
                if len(set(ids)) != 10 or not all(ids):
                    broken.append(ids)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        rows: list[dict[str, object]] = []
        for round_ in range(8):
            rows.append(new(f"n{round_}", f"i{round_}"))
            live.write(*rows, {"item_id": f"i{round_ + 10}", "in_stock": False})
            if round_ % 2:
                live.updates.rebuild()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not broken
