"""The law that the sampler's graph outputs: that of the slow reference, and that of the lists which come up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.loop.draw_law import check_law
from model.reference.decoder import log_propensities, normalise, nucleus
from service.artifact.array_types import FloatArray
from service.artifact.features import GAP_UNKNOWN, NO_EVENTS
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob, EncodeJob, ListRequest
from service.engine.run_groups import result_of
from service.signals.item_values import ItemValues
from tests.support.artifacts import random_parts, write_artifact
from tests.support.networks import random_network

WIDE, COLD = Decoding("temperature", temperature=1.3), Decoding("temperature", temperature=0.05)
NARROW, SHARP = Decoding("top_p", top_p=0.6), Decoding("top_p", top_p=0.2, temperature=0.5)


@pytest.fixture(scope="module", params=[True, False], ids=["whole catalogue", "signals alone"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    model = random_network(seed=4, n_items=300, sizes=(7, 7, 7), scale=3.0)
    parts = replace(random_parts(model), dense=request.param)
    return Engine.open(write_artifact(tmp_path_factory.mktemp("artifact"), parts), device="cpu", threads=1)


def asking(engine: Engine, decoding: Decoding, k: int = 20, seed: int = 0) -> ListRequest:
    signals = ItemValues(np.arange(0, 300, 7), np.random.default_rng(seed).normal(size=43).astype(np.float32))
    context = np.zeros(engine.artifact.network["n_slots"], np.int64)
    return ListRequest(context=context, gap_ms=GAP_UNKNOWN, decoding=decoding, k=k, seed=seed, signals=signals)


def state(engine: Engine) -> FloatArray:
    return result_of(engine.encode([EncodeJob(events=NO_EVENTS, from_start=True)])[0]).h


def decoded(engine: Engine, *requests: ListRequest) -> list[DecodedList]:
    h = state(engine)
    return [result_of(one) for one in engine.decode([DecodeJob(h=h, request=request) for request in requests])]


@pytest.mark.parametrize("decoding", [WIDE, COLD, NARROW, SHARP], ids=str)
def test_the_law_of_the_graph_is_that_of_the_slow_reference(engine: Engine, decoding: Decoding) -> None:
    for one in decoded(engine, *(asking(engine, decoding, k=1 + 7 * (seed % 4), seed=seed) for seed in range(8))):
        draw = one.draw
        assert draw is not None and one.log_propensities is not None
        scores = dict(zip(draw.items.tolist(), draw.scores.tolist(), strict=True))
        log_probs = normalise({item: score * decoding.inverse_temperature for item, score in scores.items()})
        want = log_propensities(log_probs, nucleus(log_probs, decoding.nucleus), one.items.tolist())
        assert one.log_propensities.tolist() == pytest.approx(want, abs=1e-4)
        assert one.scores.tolist() == [scores[item] for item in one.items.tolist()]


def test_a_list_of_all_that_is_allowed_ends_with_certainty(engine: Engine) -> None:
    excluded = np.arange(3, 300)
    (one,) = decoded(engine, replace(asking(engine, WIDE), excluded=excluded))
    assert len(one.items) == 3
    assert one.log_propensities is not None
    assert one.log_propensities[-1] == pytest.approx(0.0, abs=1e-6)
    assert one.draw is not None and sorted(one.draw.items.tolist()) == [0, 1, 2]


def test_a_deterministic_list_has_no_draw(engine: Engine) -> None:
    (one,) = decoded(engine, asking(engine, Decoding("beam")))
    assert one.draw is None and one.log_propensities is None


@pytest.mark.parametrize("decoding", [WIDE, NARROW], ids=str)
def test_lists_come_up_as_their_law_says(engine: Engine, decoding: Decoding) -> None:
    """The short form of `python -m loadtests.loop.draw_law`."""
    found = check_law(engine, state(engine), asking(engine, decoding, k=8), draws=600)
    assert found.off_by < 1e-4
    assert found.p_value > 0.001


def test_lists_that_another_law_has_drawn_are_found_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = engine.decode

    def wrong(jobs: list[DecodeJob]) -> list[DecodedList | Exception]:
        """Claims candidates with other scores than those that were drawn from."""
        lists = [result_of(one) for one in decode(jobs)]
        draws = [one.draw for one in lists]
        assert all(isinstance(draw, Draw) for draw in draws)
        return [
            replace(one, draw=replace(draw, scores=draw.scores * np.float32(0.5)))
            for one, draw in zip(lists, draws, strict=True)
            if draw is not None
        ]

    monkeypatch.setattr(engine, "decode", wrong)
    found = check_law(engine, state(engine), asking(engine, WIDE, k=8), draws=600)
    assert found.p_value < 1e-6
    assert found.off_by > 0.01
